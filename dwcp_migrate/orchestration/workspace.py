"""The fleet, its rules and limits, forecasts and the journal: all that plans are made of and carried out with.

The rule here: no text and no terminal. A fleet from a file is planned for, never touched. The planner and its kernels
are loaded where a plan is asked for: commands that only look must answer in a fraction of a second.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.schema import Measured
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import DEFAULT_PATH, Config, load
from dwcp_migrate.errors import DwcpError, PlacementError
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.orchestration.executor import PlanExecutor, Watcher
from dwcp_migrate.orchestration.fleet_constraints import fleet_for_placement, limit_policy, rules_of
from dwcp_migrate.orchestration.fleet_source import (
    SETTINGS_NAME,
    FleetFile,
    FleetSettings,
    FleetSource,
    LibvirtFleet,
    addresses,
    read_settings,
)
from dwcp_migrate.orchestration.measured_load import LoadedFleet, MeasuredFleet
from dwcp_migrate.orchestration.move_cost import AgentCost, Questions
from dwcp_migrate.orchestration.plan_journal import JOURNAL_NAME, Ending, PlanJournal, goal_words, read
from dwcp_migrate.orchestration.plan_progress import moved_since
from dwcp_migrate.orchestration.plan_store import AgentPlans
from dwcp_migrate.orchestration.shared_state import SharedFleet, SharedState
from dwcp_migrate.orchestration.watched_migration import Hosts
from dwcp_migrate.placement.cost import MoveCost, PlacementPolicy, default_cost
from dwcp_migrate.placement.fleet import Fleet, Rule
from dwcp_migrate.placement.plan import Goal, Plan, Unfinished
from dwcp_migrate.protocol.load import FleetLoad


@dataclass(frozen=True, slots=True)
class Workspace:
    """One view of the fleet.

    Attributes:
        config: whose peers are the fleet.
        source: reads the fleet as it is now.
        hosts: calls their libvirtds; None for a fleet from a file.
        shared: the fleet's state, where one is configured.
        cost: forecasts migrations.
        at_once: migrations at once, from and to each host and in all, instead of the policy's; 0 is the policy's.
        client: the local agent; None for a fleet from a file.
        known: facts of hosts that have answered so far.
    """

    config: Config
    source: FleetSource
    hosts: Hosts | None
    shared: SharedState | None = None
    cost: MoveCost = default_cost
    at_once: int = 0
    client: ApiClient | None = None
    known: Mapping[str, HostFacts] = field(default_factory=dict)

    def load(self) -> FleetLoad:
        """Load of hosts and guests, as the agents know it; nothing where this host has none."""
        if self.client is not None:
            with contextlib.suppress(DwcpError):
                return self.client.ask("load", FleetLoad)
        return FleetLoad()

    @property
    def settings_path(self) -> Path:
        """The operator's rules and host settings."""
        return self.config.state_directory / SETTINGS_NAME

    @property
    def journal_path(self) -> Path:
        """The journal of the plan that is carried out, or was last."""
        return self.config.state_directory / JOURNAL_NAME

    def settings(self) -> FleetSettings:
        """Read the settings."""
        return read_settings(self.settings_path)

    def rules(self) -> list[Rule]:
        """The rules: the fleet's where it has a shared state, else those of the settings."""
        return self.settings().rules if self.shared is None else rules_of(self.shared.read_constraints())

    def fleet_for_placement(self) -> Fleet:
        """The fleet as new domains find it."""
        fleet = self.source.snapshot()
        return fleet if self.shared is None else fleet_for_placement(fleet, self.shared.read_constraints())

    def policy(self) -> PlacementPolicy:
        """The policy of the settings, within the fleet's limits."""
        policy = self.settings().policy
        if self.at_once:
            policy = msgspec.structs.replace(
                policy, outgoing_max=self.at_once, incoming_max=self.at_once, running_max=self.at_once
            )
        return policy if self.shared is None else limit_policy(policy, self.shared.read_constraints())

    def plan_rebalance(self, whole: Fleet) -> Plan:
        """Plan to even the fleet out, on all cores."""
        from concurrent.futures import ThreadPoolExecutor

        from dwcp_migrate.placement.balance import Workers
        from dwcp_migrate.placement.planner import plan_rebalance

        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as threads:
            return plan_rebalance(whole, self.policy(), self.cost, Workers(threads.map, cores))

    def plan_exactly(self, whole: Fleet, goal: Goal, seconds: float) -> Plan:
        """Plan by the exact solver, on all cores.

        Args:
            whole: the fleet as it is.
            goal: of the plan.
            seconds: time limit of the solver.

        Raises:
            PlacementError: no such host, or the solver found no plan in time.
            HypervisorError: the host to be emptied does not answer.
        """
        from dwcp_migrate.placement.planner import plan_exactly
        from dwcp_migrate.placement.solver.exact import SolverEffort

        effort = SolverEffort(seconds, workers=os.cpu_count() or 1)
        return plan_exactly(whole, goal, effort, self.policy(), self.cost)

    def rested(self, fleet: Fleet) -> Fleet:
        """Fix the domains that were rebalanced lately to their hosts; domains of a drain may come back."""
        from dwcp_migrate.placement.planner import rest_domains

        last = read(self.journal_path) if self.hosts is not None else None
        since = wall_clock() - self.settings().policy.cool_down_s
        tired: set[str] = set()
        if last is not None and last.plan.goal.purpose == "rebalance":
            tired = {domain for domain, at in last.moved_at.items() if at > since}
        if self.client is not None:
            with contextlib.suppress(DwcpError):  # no agent keeps plans
                tired |= moved_since((one.record for one in AgentPlans(self.client).all()), since)
        return rest_domains(fleet, tired) if tired else fleet

    def unended(self, goal: Goal) -> bool:
        """Whether the journal has a plan for this goal that has not ended.

        Raises:
            PlacementError: it has one for another goal.
        """
        progress = read(self.journal_path) if self.hosts is not None else None
        if progress is None or progress.ended is not None:
            return False
        if progress.plan.goal != goal:
            raise PlacementError(
                f"a plan has not ended: {goal_words(progress.plan.goal)}",
                hint="give that command again, or `dwcp-migrate rebalance --abandon`",
            )
        return True


@contextmanager
def open_workspace(
    config_path: Path | None,
    fleet_path: Path | None,
    at_once: int = 0,
    *,
    copies_storage: bool = False,
    measure_s: float = 0.0,
) -> Iterator[Workspace]:
    """Open the fleet.

    Args:
        config_path: of the agent's configuration; None is the default one.
        fleet_path: of a fleet that was written down, instead of asking libvirt.
        at_once: see `Workspace`.
        copies_storage: migrations copy local disks, so that these keep no domain where it is.
        measure_s: seconds for which load is measured; 0 takes what the agents know of the last hour.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    if fleet_path is not None:
        yield Workspace(load(config_path) if config_path else Config(), FleetFile(fleet_path), None, at_once=at_once)
        return
    from dwcp_migrate.hypervisor.inventory.libvirt_hypervisors import LibvirtHypervisors

    config = load(config_path or DEFAULT_PATH)
    client = ApiClient(control_socket(config_path, None))
    own = own_name(config, client)
    found = addresses(config, own)
    hypervisors = LibvirtHypervisors()
    uris = {name: address.ours for name, address in found.items()}
    known: dict[str, HostFacts] = {}
    libvirt_fleet = LibvirtFleet(
        hypervisors, uris, lambda: read_settings(config.state_directory / SETTINGS_NAME), known, copies_storage
    )
    by_use: FleetSource = LoadedFleet(libvirt_fleet, lambda: client.ask("load", FleetLoad))
    if measure_s:
        by_use = MeasuredFleet(libvirt_fleet, hypervisors, uris, measure_s)
    shared = SharedState(client) if config.coordination.is_shared else None
    source = by_use if shared is None else SharedFleet(by_use, shared)
    asked = Questions(lambda domain, peer: client.predict(domain, peer, 0.0), lambda: client.ask("measured", Measured))
    cost = AgentCost(asked, own, found.keys() - {own})
    try:
        yield Workspace(config, source, Hosts(hypervisors, found), shared, cost, at_once, client, known)
    finally:
        hypervisors.close()


def own_name(config: Config, client: ApiClient | None) -> str:
    """Return the name that the fleet knows this host by: the configured one, else the one that its agent goes by.

    Args:
        config: of this host.
        client: the local agent; without one, or where it does not answer, the system's name has to do.
    """
    if config.name:
        return config.name
    with contextlib.suppress(DwcpError):
        if client is not None:
            return client.status().name
    return socket.gethostname()


@dataclass(frozen=True, slots=True)
class Carried:
    """Result of a plan.

    Attributes:
        left: domains that it did not move.
        moved: how many it did.
        ended: how.
    """

    left: list[Unfinished]
    moved: int
    ended: Ending | None


def carry_out(
    ours: Workspace,
    plan: Plan | None,
    executor: PlanExecutor,
    lease_lost: Callable[[], None],
) -> Carried:
    """Carry a plan out, or go on with the journal's; under the fleet's lease, where there is one.

    Args:
        ours: the fleet.
        plan: a new one; None goes on with the one that has not ended.
        executor: see `executor_of`.
        lease_lost: called once, from a thread, when the lease is about to be lost; the executor stops by itself.

    Raises:
        PlacementError: the journal is held by another process; see also `PlanExecutor.run`.
        CoordinationError: another host carries a plan out.
    """
    journal = PlanJournal.resume(ours.journal_path)
    if journal is None:
        if plan is None:
            return Carried([], 0, "completed")
        journal = PlanJournal.begin(ours.journal_path, plan)

    def lost() -> None:
        lease_lost()
        executor.stop.set()

    with journal, _leased(ours, journal, lost):
        left = executor.run(journal)
        return Carried(left, len(journal.progress.moved_at), journal.progress.ended)


def executor_of(ours: Workspace, watcher: Watcher, options: MigrationOptions) -> PlanExecutor:
    """Make the executor for a workspace's fleet.

    Args:
        ours: the workspace; its policy and forecasts count.
        watcher: hears what happens.
        options: of each migration.

    Raises:
        PlacementError: the fleet is from a file.
    """
    if ours.hosts is None:
        raise PlacementError(
            "a fleet from a file is planned for, not changed", hint="leave --fleet out, or show the plan: --dry-run"
        )
    return PlanExecutor(ours.hosts, ours.source, watcher, ours.policy(), ours.cost, options)


@contextmanager
def _leased(ours: Workspace, journal: PlanJournal, lost: Callable[[], None]) -> Iterator[None]:
    """Hold the fleet's lease, where there is one; a new plan that does not get it is given up."""
    if ours.shared is None:
        yield
        return
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(ours.shared.lease(lost))
        except DwcpError:
            if not journal.progress.states:
                journal.end("abandoned")
            raise
        yield
