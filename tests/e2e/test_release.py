"""Release 0.1.0 beside the code of now: a guest between agents of both, a fleet upgraded and downgraded host by host.

What must hold: the guest runs on exactly one host, its memory sound, after each migration; each one was accelerated,
or its record says why not; one record of the fleet, whichever releases keep it.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec
import pytest

from dwcp_migrate.api.cluster import Cluster
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import LabGuest
from dwcp_migrate.lab.hosts.agents import give
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.shuttle import Move, newest_record
from tests.agent.release import unpack_release
from tests.e2e.world import GUEST, SLOW, WAN, World, migrate

pytestmark = pytest.mark.lab

NAMES: Final = ("hv1", "hv2", "hv3")
SETTLED_S: Final = 90.0


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
        world.at_rest()


class MixedFleet:
    """Three hosts with a vote each, their agents of either release, and a guest."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.guest = LabGuest(GUEST)
        self.old = dict.fromkeys(NAMES, True)
        for name in NAMES:
            self.restart(name, old=True)
        self.agree()
        self.guest.start(lab["hv1"])

    def restart(self, name: str, *, old: bool) -> None:
        """Restart a host's agent, of 0.1.0 or of now, on the same directories."""
        self.old[name] = old
        changes = {"coordination": {"voters": list(NAMES), "timeout_s": 5.0}}
        self.lab.start_agent(name, changes, release_on(self.lab[name]) if old else None)

    def cluster(self, name: str) -> Cluster:
        return msgspec.convert(self.lab.agents[name].get("/v1/cluster"), Cluster)

    def agree(self) -> None:
        """Wait until every host follows one leader and has heard of each host after now."""
        known = self.cluster("hv1").hosts
        before = max((host.heard_at for host in known), default=0.0)
        for name in NAMES:
            self.until(lambda name=name: self._is_up_to(name, before))  # type: ignore[misc]
        assert len({self.cluster(name).engine.leader for name in NAMES}) == 1

    def _is_up_to(self, name: str, before: float) -> bool:
        found = self.cluster(name)
        heard = [host.heard_at for host in found.hosts]
        return bool(found.engine.leader) and len(heard) == len(NAMES) and min(heard) > before

    def host(self) -> Hypervisor:
        """Where the guest runs."""
        (name,) = self.guest.running_on(*self.lab.hypervisors)
        return self.lab[name]

    def begin(self, destination: str) -> Move:
        command = ["migrate", "--live", GUEST.name, f"qemu+tcp://{destination}/system"]
        return Move(self.host().popen(["virsh", *command]), " ".join(command))

    def sent_bytes(self, name: str) -> int:
        """What a host's agent has taken of the migration that leaves."""
        with suppress(LabError):
            running: list[dict[str, Any]] = self.lab.agents[name].get("/v1/migrations")["migrations"]
            return sum(record["counters"]["raw_bytes"] for record in running)
        return 0

    def until(self, holds: Callable[[], Any]) -> None:
        """Wait for what has no event."""
        deadline = time.monotonic() + SETTLED_S
        while not holds():
            assert time.monotonic() < deadline, "in vain"
            time.sleep(0.2)

    def migrate_while(self, act: Callable[[], None], aside: str) -> None:
        """Migrate between the two other hosts while something is done to the third; nothing may be lost by it."""
        source, begin = self.host().name, time.time()
        destination = next(name for name in NAMES if name not in {source, aside})
        self.lab.wan.set(SLOW)
        move = self.begin(destination)
        self.until(lambda: self.sent_bytes(source) > 4 << 20 or not move.runs)
        act()
        self.lab.wan.set(WAN)
        outcome = move.wait()
        assert outcome.succeeded, outcome.said
        assert self.host().name == destination
        self.guest.wait_healthy(self.host())
        record = newest_record(self.lab.agents[source], "source", after=begin)
        said = [event.detail for event in record.events if event.event == "agreement"]
        assert not record.passthrough_reason or said, record


@pytest.fixture
def fleet() -> Iterator[MixedFleet]:
    with Lab.up(LabOptions(name=f"release-{os.getpid()}", hosts=len(NAMES), link=WAN, owned=True)) as lab:
        yield MixedFleet(lab)


def test_hosts_are_upgraded_and_downgraded_in_a_row_while_a_guest_migrates(fleet: MixedFleet) -> None:
    for is_old in (False, True, False):
        turns = [name for name in NAMES if name != fleet.host().name]
        turns.append(fleet.host().name)
        while turns:
            aside = next((name for name in turns if name != fleet.host().name), None)
            if aside is None:  # the guest is on the last one: it leaves first
                stays = next(name for name in NAMES if name != fleet.host().name)
                fleet.migrate_while(lambda: None, stays)
                continue
            fleet.migrate_while(lambda: fleet.restart(aside, old=is_old), aside)  # noqa: B023 - called at once
            turns.remove(aside)
            fleet.agree()
    status = {name: fleet.cluster(name).engine.state for name in NAMES}
    assert sorted(status.values()) == ["follower", "follower", "leader"], status
    fleet.lab.agents["hv1"].post("/v1/cluster/raise-version")
    fleet.agree()
