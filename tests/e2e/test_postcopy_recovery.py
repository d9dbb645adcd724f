"""Postcopy that breaks off and is taken up again: the guest is split between two hosts, and comes together whole.

What must hold: until it is recovered the source's record says where the guest is and what to do; the resumption is
carried, also where the fleet requires agreement; afterwards the guest runs at the destination with all its memory. An
agent that dies alone breaks nothing off.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

import pytest

from dwcp_migrate.agent.migrations.outgoing import RESUMES_POSTCOPY
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.shuttle import Watch, newest_record
from tests.e2e.world import GUEST, Journey, World, completed, journey, migrate

pytestmark = pytest.mark.lab

Side = Literal["source", "destination"]

SIDES: Final[tuple[Side, ...]] = ("source", "destination")
LOSS_S_MAX: Final = 4.0
BACKGROUND_MIB_PER_S: Final = "1"
"""Of pages that the guest does not ask for: postcopy lasts, and the guest runs all the same."""

RECOVERY_PORT: Final = 49160
"""One of libvirt's that is free: the redirect takes it like the first."""
RECOVERY_S_MAX: Final = 180.0


@contextmanager
def in_postcopy(world: World) -> Iterator[Journey]:
    """Begin a migration and yield it once the guest runs at the destination and most of its memory is still to come.

    Until then the destination's QEMU has nothing to go on with: a connection that broke would cost the guest. Nor may
    it break before the guest has spoken there: an emulated processor whose interrupt table has not come yet waits for
    it with QEMU's lock held, and such a QEMU takes no command to recover any more. (KVM has no such wait.)
    """
    guest, there = world.shuttle.guest, world.shuttle.destination
    with Watch(world.agent(world.shuttle.destination)) as arriving, journey(world, "--postcopy") as going:
        going.reach()
        going.source.virsh("migrate-setspeed", GUEST.name, BACKGROUND_MIB_PER_S, "--postcopy")
        going.source.virsh("migrate-postcopy", GUEST.name)
        before = guest.report(going.source)
        arriving.until(runs_there)
        guest.wait_report(there, after=guest.wait_report(there, after=before))
        yield going


def runs_there(record: Migration) -> bool:
    return record.role == "destination" and any(event.event == "libvirt-postcopy" for event in record.events)


def resume(going: Journey) -> None:
    """Take it up again by QEMU's own commands, and wait until the source has no such domain any more.

    libvirt 11.3 would crash at the destination on `--postcopy-resume`, with agents and without.
    """
    qemu(going.destination, "migrate-recover", uri=f"tcp:0.0.0.0:{RECOVERY_PORT}")
    qemu(going.source, "migrate", uri=f"tcp:{going.destination.address}:{RECOVERY_PORT}", resume=True)
    deadline = time.monotonic() + RECOVERY_S_MAX
    while GUEST.name in going.source.domains():
        assert time.monotonic() < deadline, going.source.virsh("domstate", GUEST.name, "--reason", check=False).stdout
        time.sleep(0.5)  # nothing tells it but asking


def qemu(host: Hypervisor, command: str, **arguments: object) -> None:
    """Have a host's QEMU execute a command."""
    answer = host.virsh("qemu-monitor-command", GUEST.name, json.dumps({"execute": command, "arguments": arguments}))
    assert "error" not in json.loads(answer.stdout), answer.stdout


def recovered(world: World, going: Journey) -> Migration:
    """Take it up again, check that the guest came together whole, and return the record of what broke off."""
    assert not going.move.wait().succeeded
    broken, _ = going.records()
    assert broken.result == "failed", broken
    assert broken.is_split, broken
    world.restore_wan()
    resume(going)
    resumed = newest_record(world.agent(going.source), "source", after=broken.ended_at)
    assert (resumed.result, resumed.passthrough_reason, resumed.port) == (
        "completed",
        RESUMES_POSTCOPY,
        RECOVERY_PORT,
    )
    assert world.shuttle.source == going.destination
    world.shuttle.check()
    return broken


@pytest.mark.parametrize("requires", [False, True], ids=["open", "with-agreement-required"])
def test_a_link_cut_past_the_limit_in_postcopy_is_recovered(world: World, *, requires: bool) -> None:
    changes: dict[str, object] = {"link": {"loss_s_max": LOSS_S_MAX}}
    if requires:
        changes["coordination"] = {"voters": [host.name for host in world.lab.hypervisors], "require": True}
    world.configure(changes)
    if requires:
        world.until_the_fleet_answers()
    with in_postcopy(world) as going:
        world.lab.wan.cut()
        going.watch.until(lambda record: record.state == "ended" or bool(record.reason))
        world.lab.wan.heal()
    broken = recovered(world, going)
    assert "postcopy-resume" in world.shown(going.source, broken)


@pytest.mark.parametrize("side", SIDES)
def test_an_agent_killed_in_postcopy_breaks_nothing_off(world: World, side: Side) -> None:
    with in_postcopy(world) as going:
        host = going.source if side == "source" else going.destination
        world.agent(host).kill()
    world.restore_wan()
    world.restart(host)
    completed(world, going.move.wait(), (going.source, going.destination), going.begin, with_agents=False)


@pytest.mark.parametrize("side", SIDES)
def test_agent_and_data_process_killed_in_postcopy_leave_a_guest_that_is_recovered(world: World, side: Side) -> None:
    end = ending(world, side)
    with in_postcopy(world) as going:
        end()
    world.restart(going.source if side == "source" else going.destination)
    broken = recovered(world, going)
    assert "postcopy-resume" in world.shown(going.source, broken)
    migrate(world)


def ending(world: World, side: Side) -> Callable[[], None]:
    """Return what kills a side's agent and the data process that its next migration gets."""
    host = world.shuttle.source if side == "source" else world.shuttle.destination
    process = world.data_process(host)

    def end() -> None:
        world.agent(host).kill()
        process.end(grace_s=0)

    return end
