"""Three hosts that are played, eight domains on two of them, and plans carried out among them."""

from collections.abc import Callable  # noqa: TC003 - an attribute that tests set
from pathlib import Path

import msgspec

from dwcp_migrate.hypervisor.inventory.domain_description import DomainFacts
from dwcp_migrate.hypervisor.inventory.fake import FakeHypervisors
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.orchestration import plan_journal as journals
from dwcp_migrate.orchestration.executor import PlanExecutor
from dwcp_migrate.orchestration.fleet_source import (
    FleetSettings,
    HostAddress,
    HostSettings,
    LibvirtFleet,
)
from dwcp_migrate.orchestration.plan_journal import PlanJournal
from dwcp_migrate.orchestration.watched_migration import Hosts
from dwcp_migrate.placement.check import violations
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Rule
from dwcp_migrate.placement.plan import Plan, Step, Unfinished
from dwcp_migrate.placement.planner import plan_drain
from dwcp_migrate.units import GIB


class Seen:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.failures: list[str] = []
        self.plans = 0
        self.to_go: list[int] = []
        self.on_waiting: Callable[[list[Unfinished]], None] = lambda _left: None

    def begun(self, step: Step) -> None:
        self.steps.append(step.domain)

    def ended(self, step: Step, error: str, to_go: int) -> None:
        self.to_go.append(to_go)
        if error:
            self.failures.append(step.domain)

    def planned_again(self, plan: Plan, why: str) -> None:
        del plan, why
        self.plans += 1

    def waiting(self, left: list[Unfinished]) -> None:
        self.on_waiting(left)


class World:
    """Three hosts, eight domains on the first two, and a state directory."""

    def __init__(self, directory: Path, guests: int = 8) -> None:
        facts = HostFacts(cpus=8, memory_bytes=64 * GIB)
        self.hypervisors = FakeHypervisors(dict.fromkeys(("hv1", "hv2", "hv3"), facts))
        self.settings = FleetSettings(rules=[Rule(name="pair", kind="apart", domains=["vm0", "vm1"])])
        for number in range(guests):
            self.hypervisors.start("hv1" if number % 2 else "hv2", facts_of(f"vm{number}"))
        self.path = directory / "plan.journal"
        uris = {name: name for name in self.hypervisors.hosts}
        self.source = LibvirtFleet(self.hypervisors, uris, lambda: self.settings, {})
        self.hosts = Hosts(self.hypervisors, {name: HostAddress(name, name, f"tcp://{name}") for name in uris})
        self.seen = Seen()

    def drain(self, name: str) -> Plan:
        own = {**self.settings.hosts, name: HostSettings(state="maintenance")}
        self.settings = msgspec.structs.replace(self.settings, hosts=own)
        return plan_drain(self.source.snapshot(), name)

    def executor(self, policy: PlacementPolicy | None = None) -> PlanExecutor:
        return PlanExecutor(self.hosts, self.source, self.seen, policy or PlacementPolicy(), clock=lambda: 1000.0)

    def carry_out(self, plan: Plan) -> list[Unfinished]:
        with PlanJournal.begin(self.path, plan) as journal:
            return self.executor().run(journal)

    def names(self, name: str) -> set[str]:
        return set(self.hypervisors.running[name])

    def sound(self) -> bool:
        whole = self.source.snapshot()
        return violations(whole, {one.name: one.host for one in whole.domains}) == []


def facts_of(name: str, memory_bytes: int = GIB) -> DomainFacts:
    return DomainFacts(name=name, uuid=name, vcpus=2, memory_bytes=memory_bytes)


def progress(path: Path) -> journals.PlanProgress:
    found = journals.read(path)
    assert found is not None
    return found
