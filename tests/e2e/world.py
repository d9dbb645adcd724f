"""What the end-to-end tests share: a lab with agents and one guest that moves between its hosts.

The rule here: a test takes the guest wherever the one before left it, may break what it likes, and `World.restore`
makes whole what was broken. What it may not leave behind is counted (`lab.census`) after every test.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.dataplane.process_pool import SPARES
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.hosts.agents import LabAgent
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.hosts.processes import ProcessId, identify_process
from dwcp_migrate.lab.lab import Lab
from dwcp_migrate.lab.observation.census import Census, at_rest, children, settled
from dwcp_migrate.lab.shuttle import Move, Shuttle, ShuttleOutcome, Watch, newest_record
from dwcp_migrate.lab.wan import WanLink

WAN: Final = WanLink(rate_bytes_per_s=50e6, delay_s=0.005, loss=0.0)
"""400 Mbit/s, 10 ms: a migration takes seconds."""

SLOW: Final = WanLink(rate_bytes_per_s=4e6, delay_s=0.005, loss=0.0)
"""32 Mbit/s: the first pass takes about ten seconds, enough to do something in the middle of it."""

GUEST: Final = GuestOptions(memory_mib=128, fill_mib=32, dirty_pages_per_s=300, check_pages_per_s=8000)

DOWNTIME_MS_NEVER: Final = 1
"""With this limit a guest that writes never converges over SLOW: there are later passes for as long as one likes."""


class World:
    """The lab, its agents and the guest.

    Args:
        lab: with two hosts, no agents yet.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.shuttle = Shuttle(lab, LabGuest(GUEST))
        self._changed: set[str] = set()
        lab.start_agents()
        self.shuttle.guest.start(lab.hypervisors[0])
        self._at_rest: Census = at_rest(lab)

    def agent(self, host: Hypervisor) -> LabAgent:
        """Return a host's agent."""
        return self.lab.agents[host.name]

    def configure(self, changes: Mapping[str, Any], *hosts: Hypervisor) -> None:
        """Restart the agents of these hosts, or of all, with a configuration that differs; `restore` undoes it."""
        for host in hosts or self.lab.hypervisors:
            self.lab.start_agent(host.name, changes)
            self._changed.add(host.name)

    def restart_with(self, host: Hypervisor, environment: Mapping[str, str]) -> None:
        """Restart a host's agent with more in its environment; `restore` undoes it."""
        self.lab.start_agent(host.name, environment=environment)
        self._changed.add(host.name)

    def rewrite(self, changes: Mapping[str, Any], host: Hypervisor) -> None:
        """Write an agent's configuration with something that differs, for a reload; `restore` undoes it."""
        self.lab.configure_agent(host.name, changes)
        self._changed.add(host.name)

    def restart(self, host: Hypervisor) -> None:
        """Start an agent as it was at first."""
        self.lab.start_agent(host.name)
        self._changed.discard(host.name)

    def restore(self) -> None:
        """Make whole what a test broke: the WAN, the agents, the guest."""
        self.restore_wan()
        for host in self.lab.hypervisors:
            if host.name in self._changed or not self.agent(host).is_alive():
                self.restart(host)
        hosts = self.lab.hypervisors
        if len(self.shuttle.guest.running_on(*hosts)) != 1:
            self.shuttle.guest.destroy(*hosts)
            self.shuttle.guest.start(hosts[0])

    def restore_wan(self) -> None:
        """Make the WAN quick and whole."""
        self.lab.wan.heal()
        self.lab.wan.set(WAN)

    def left_behind(self) -> dict[str, tuple[int, int]]:
        """Return what the lab holds more or less than when it was new, once it is at rest."""
        return settled(self.lab, self._at_rest)

    def at_rest(self) -> None:
        """Wait until all migrations have ended and everything that they needed is gone.

        Raises:
            LabError: something stays.
        """
        if left := self.left_behind():
            raise LabError(f"left behind: {left}")

    def data_process(self, host: Hypervisor) -> ProcessId:
        """Return the data process that the agent's next migration gets: the one that has waited longest."""
        waiting = [identify_process(pid) for pid in children(self.agent(host).process.pid)]
        if not 1 <= len(waiting) <= SPARES:
            raise LabError(f"the agent of {host.name} has {len(waiting)} data processes, expected spare ones only")
        return min(waiting, key=lambda process: process.start_ticks)

    def records(self, source: Hypervisor, destination: Hypervisor, begin: float) -> tuple[Migration, Migration]:
        """Wait for what both agents recorded of the migration that began after `begin`."""
        return (
            newest_record(self.agent(source), "source", after=begin),
            newest_record(self.agent(destination), "destination", after=begin),
        )

    def limit_downtime(self, milliseconds: int) -> None:
        """Set what QEMU may take as downtime in the migration that runs."""
        self.shuttle.source.virsh("migrate-setmaxdowntime", GUEST.name, str(milliseconds))


def migrate(world: World, *flags: str, uri: str = "qemu+tcp") -> tuple[Migration, Migration]:
    """Migrate, accelerated, and check everything that holds for a migration that went well; returns both records."""
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    outcome = world.shuttle.move(*flags, uri=uri)
    return completed(world, outcome, (source, destination), begin)


def completed(
    world: World, outcome: ShuttleOutcome, way: tuple[Hypervisor, Hypervisor], begin: float, *, with_agents: bool = True
) -> tuple[Migration, Migration]:
    """Check everything that holds for an accelerated migration that went well; returns both records.

    Without both agents at its end neither may have heard what the other recorded.
    """
    source, destination = way
    assert outcome.succeeded, outcome.said
    assert world.shuttle.source == destination
    world.shuttle.check()
    out, into = world.records(source, destination, begin)
    assert out.id == into.id
    for record in (out, into):
        assert (record.result, record.passthrough_reason) == ("completed", ""), record
        assert record.domain == GUEST.name
        assert record.uuid == destination.virsh("domuuid", GUEST.name).stdout.strip()
    assert (out.peer, into.peer) == (destination.name, source.name)
    if with_agents:
        assert "completed" in {out.peer_result, into.peer_result}  # whoever ended last knows what the other recorded
    return out, into


@dataclass(frozen=True)
class Journey:
    """A migration that was begun over the slow WAN, and the records of it as its source writes them."""

    world: World
    source: Hypervisor
    destination: Hypervisor
    begin: float
    watch: Watch
    move: Move

    def reach(self, raw_bytes: int = 8 << 20) -> None:
        """Wait until so much of QEMU's stream was taken: 8 MiB are in the midst of the first pass."""
        self.watch.until(lambda record: record.counters.raw_bytes > raw_bytes)

    def completed(self) -> tuple[Migration, Migration]:
        """Wait for the end and check it, see `completed`; the watch may be over by then."""
        return completed(self.world, self.move.wait(), (self.source, self.destination), self.begin)

    def records(self) -> tuple[Migration, Migration]:
        """See `World.records`."""
        return self.world.records(self.source, self.destination, self.begin)


@contextmanager
def journey(world: World, *flags: str) -> Iterator[Journey]:
    """Begin a migration over the slow WAN and watch it as long as the block lasts."""
    world.lab.wan.set(SLOW)
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    with Watch(world.agent(source)) as watch:
        yield Journey(world, source, destination, begin, watch, world.shuttle.begin(*flags))


def migrate_stock(world: World) -> None:
    """Migrate without anybody's help and check that the guest arrived whole."""
    destination = world.shuttle.destination
    outcome = world.shuttle.move()
    assert outcome.succeeded, outcome.said
    assert world.shuttle.source == destination
    world.shuttle.check()
