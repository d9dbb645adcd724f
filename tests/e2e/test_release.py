"""Release 0.1.0 beside the code of now: a guest between agents of both, a fleet upgraded and downgraded host by host.

What must hold: the guest runs on exactly one host, its memory sound, after each migration; each one was accelerated,
or its record says why not; one record of the fleet, whichever releases keep it.
"""

import os
from collections.abc import Iterator

import pytest

from dwcp_migrate.lab.hosts.agents import give
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab, LabOptions
from tests.agent.release import unpack_release
from tests.e2e.small_fleet import NAMES, SmallFleet
from tests.e2e.world import WAN, World, migrate

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]


def release_on(host: Hypervisor) -> dict[str, str]:
    """Put release 0.1.0 onto a host; returns what runs its agent from there."""
    directory = host.directory / "release-0.1.0"
    if not directory.exists():
        directory.mkdir()
        unpack_release(directory)
        give(host, directory)
    return {"PYTHONPATH": str(directory)}


@pytest.mark.parametrize("old", [0, 1], ids=["old-first", "old-second"])
def test_a_guest_goes_both_ways_between_agents_of_both_releases(world: World, old: int) -> None:
    host = world.lab.hypervisors[old]
    world.restart_with(host, release_on(host))
    for _ in range(2):
        migrate(world)


@pytest.fixture
def fleet() -> Iterator[SmallFleet]:
    with Lab.up(LabOptions(name=f"release-{os.getpid()}", hosts=len(NAMES), link=WAN, owned=True)) as lab:
        yield SmallFleet(lab, {host.name: release_on(host) for host in lab.hypervisors})


@pytest.mark.long
def test_hosts_are_upgraded_and_downgraded_in_a_row_while_a_guest_migrates(fleet: SmallFleet) -> None:
    reasons = []
    for is_old in (False, True, False):
        waiting = list(NAMES)
        while waiting:  # each migration takes the guest off a host that has its turn still to come
            aside = next(name for name in waiting if name != fleet.host().name)
            waiting.remove(aside)
            environment = release_on(fleet.lab[aside]) if is_old else {}
            record = fleet.migrate_while(lambda: fleet.restart(aside, environment), aside)  # noqa: B023 - called at once
            reasons.append(record.passthrough_reason)
            fleet.agree()
    assert reasons.count("") > len(reasons) / 2, reasons
    assert sorted(fleet.cluster(name).engine.state for name in NAMES) == ["follower", "follower", "leader"]
    fleet.lab.agents["hv1"].post("/v1/cluster/raise-version")
    fleet.agree()
