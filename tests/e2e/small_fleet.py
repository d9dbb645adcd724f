"""Three hosts that keep one record of the fleet and a guest that migrates between them."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from dwcp_migrate.api.cluster import Cluster
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import LabGuest
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab
from dwcp_migrate.lab.shuttle import Move, newest_record
from tests.e2e.world import GUEST, SLOW, WAN

NAMES: Final = ("hv1", "hv2", "hv3")
SETTLED_S: Final = 90.0


class SmallFleet:
    """Three hosts with a vote each, and a guest; hosts without a vote may be there, too.

    Args:
        lab: with these hosts, no agents yet.
        environments: what the agents of some get besides, by name; a host without a vote must be named.
    """

    def __init__(self, lab: Lab, environments: Mapping[str, Mapping[str, str]]) -> None:
        self.lab = lab
        self.guest = LabGuest(GUEST)
        names = sorted({*NAMES, *environments})
        for name in names:
            self.restart(name, environments.get(name, {}))
        self.until(lambda: len(self.cluster("hv1").hosts) == len(names))
        self.agree()
        self.guest.start(lab["hv1"])

    def restart(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Restart a host's agent on the same directories."""
        changes = {"coordination": {"voters": list(NAMES), "timeout_s": 5.0}}
        self.lab.start_agent(name, changes, environment)

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
        return bool(found.engine.leader) and len(heard) >= len(NAMES) and min(heard) > before

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

    def migrate_while(self, act: Callable[[], None], aside: str) -> Migration:
        """Migrate between the two other hosts while something is done to the third; nothing may be lost by it.

        Returns the source's record, which says whether it was accelerated, and why not.
        """
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
        assert record.result == "completed", record
        return record
