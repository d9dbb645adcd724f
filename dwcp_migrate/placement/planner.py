"""Plans for a fleet: rebalance, drain, migrate; and the same again when the fleet has changed.

The rule here: pure functions from a `Fleet` to a `Plan`. The result of a plan is checked against the fleet itself
(`check`), not against the arrays that found it.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np

from dwcp_migrate.errors import HypervisorError, PlacementError
from dwcp_migrate.placement.arrays import Integers, State
from dwcp_migrate.placement.balance import ALONE, Workers, broken_items, figures, heal, rebalance
from dwcp_migrate.placement.check import levels, violations
from dwcp_migrate.placement.cost import MoveCost, PlacementPolicy, default_cost
from dwcp_migrate.placement.explain import reasons
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.kernels.search import item_cost, item_scores, put_item, take_item
from dwcp_migrate.placement.model import Problem, build_problem
from dwcp_migrate.placement.plan import Figures, Goal, Plan, Proof, Unfinished
from dwcp_migrate.placement.schedule import schedule
from dwcp_migrate.placement.solver.exact import SolverEffort, solve_exactly

NOWHERE_WANTED: Final[Mapping[str, str]] = MappingProxyType({})


def plan_rebalance(
    fleet: Fleet, policy: PlacementPolicy | None = None, cost: MoveCost = default_cost, workers: Workers = ALONE
) -> Plan:
    """Even a fleet out; an even one gives a plan without steps. It is the same plan with any number of workers.

    Args:
        fleet: as it is now.
        policy: None takes the defaults.
        cost: forecasts migrations.
        workers: threads that try chains.
    """
    problem = build_problem(fleet, policy, cost)
    start = problem.state.copy()
    rebalance(problem, workers)
    return _planned(problem, start, Goal(purpose="rebalance"), cost)


def plan_drain(
    fleet: Fleet,
    host: str,
    policy: PlacementPolicy | None = None,
    cost: MoveCost = default_cost,
    wanted: Mapping[str, str] = NOWHERE_WANTED,
) -> Plan:
    """Empty a host.

    Args:
        fleet: as it is now.
        host: its name.
        policy: None takes the defaults.
        cost: forecasts migrations.
        wanted: hosts to which its domains go where these take them, by the domains' names; the others go where it is
            best.

    Raises:
        PlacementError: no such host.
        HypervisorError: the host does not answer, so that nobody knows what runs there.
    """
    drained = in_maintenance(fleet, host)
    problem = build_problem(drained, policy, cost)
    start = problem.state.copy()
    _go_as_wanted(problem, host, wanted)
    heal(problem)
    return _planned(problem, start, Goal(purpose="drain", host=host), cost, fleet)


def plan_exactly(
    fleet: Fleet, goal: Goal, effort: SolverEffort, policy: PlacementPolicy | None = None, cost: MoveCost = default_cost
) -> Plan:
    """Rebalance or drain a small fleet by the cheapest moves within half of `PlacementPolicy.balanced` of the best.

    Args:
        fleet: as it is now.
        goal: `rebalance` or `drain`.
        effort: of the solver.
        policy: None takes the defaults.
        cost: forecasts migrations.

    Raises:
        PlacementError: no such host, or see `exact.solve_exactly`.
        HypervisorError: the host to be drained does not answer.
    """
    whole = in_maintenance(fleet, goal.host) if goal.purpose == "drain" else fleet
    problem = build_problem(whole, policy, cost)
    start = problem.state.copy()
    (heal if goal.purpose == "drain" else rebalance)(problem)
    found = problem.state.host.copy()
    problem.restore(start)
    top, drains = figures(problem)[0], goal.purpose == "drain"
    settled = solve_exactly(problem, found, effort, top if drains else 0.0)
    level, price = settled.level, settled.price
    proof = Proof(fullest=level.value, fullest_min=level.bound, price=price.value, price_min=price.bound)
    if not drains and not broken_items(problem) and top <= level.value + problem.policy.balanced:
        proof = msgspec.structs.replace(proof, price=0.0, price_min=0.0)  # even: left alone
    else:
        _go_to(problem, price.host)
    return msgspec.structs.replace(_planned(problem, start, goal, cost, fleet), proof=proof)


def plan_migrate(
    fleet: Fleet, domain: str, host: str = "", policy: PlacementPolicy | None = None, cost: MoveCost = default_cost
) -> Plan:
    """Move one domain, and those that a hard rule keeps with it, to its best other host or to a named one.

    Args:
        fleet: as it is now.
        domain: its name.
        host: where to; empty for the best other one.
        policy: None takes the defaults.
        cost: forecasts migrations.

    Raises:
        PlacementError: no such domain or host, it does not run or may not move, or no host takes it.
    """
    problem = build_problem(fleet, policy, cost)
    item = problem.item_of[problem.domain_index(domain)]
    source = int(problem.state.host[item])
    if source < 0:
        raise PlacementError(f"{domain} runs nowhere", hint="`place` finds a host for it")
    if not problem.model.movable[item]:
        raise PlacementError(f"{domain} may not move: {_stays(problem, item)}")
    target = _target(problem, item, host)
    start = problem.state.copy()
    take_item(problem.table, item)
    put_item(problem.table, item, target)
    return _planned(problem, start, Goal(purpose="migrate", domain=domain, host=host), cost)


def plan_again(plan: Plan, fleet: Fleet, policy: PlacementPolicy | None = None, cost: MoveCost = default_cost) -> Plan:
    """Plan for the same goal in the fleet as it is now.

    Args:
        plan: the earlier one.
        fleet: as it is now.
        policy: None takes the defaults.
        cost: forecasts migrations.

    Raises:
        PlacementError: a host or domain of the goal is gone.
    """
    goal = plan.goal
    if goal.purpose == "drain":
        return plan_drain(fleet, goal.host, policy, cost)
    if goal.purpose == "migrate":
        where = {domain.name: domain.host for domain in fleet.domains}
        last = plan.steps[-1].destination if plan.steps else ""
        if where.get(goal.domain) == (goal.host or last):
            return msgspec.structs.replace(plan, steps=[], left=[], seconds=0.0)
        return plan_migrate(fleet, goal.domain, goal.host, policy, cost)
    return plan_rebalance(fleet, policy, cost)


def in_maintenance(fleet: Fleet, host: str) -> Fleet:
    """Return the fleet with a host in maintenance.

    Args:
        fleet: as it is.
        host: its name.

    Raises:
        PlacementError: no such host.
        HypervisorError: it does not answer, so that nobody knows what runs there.
    """
    named = next((one for one in fleet.hosts if one.name == host), None)
    if named is None:
        raise PlacementError(f"no host {host}", hint=f"one of {', '.join(one.name for one in fleet.hosts[:20])}")
    if named.state == "down":
        raise HypervisorError(
            f"{host} does not answer, and what runs there is not known: {named.note or 'it is down'}",
            hint="its guests may still run: mend the connection to its libvirtd, then give the command again",
        )
    hosts = [msgspec.structs.replace(one, state="maintenance") if one.name == host else one for one in fleet.hosts]
    return msgspec.structs.replace(fleet, hosts=hosts)


def rest_domains(fleet: Fleet, moved: Collection[str]) -> Fleet:
    """Return the fleet with some domains fixed where they are.

    Args:
        fleet: as it is.
        moved: names of the domains that moved lately.
    """
    domains = [
        msgspec.structs.replace(one, movable=False, stays="it moved lately")
        if one.name in moved and one.movable
        else one
        for one in fleet.domains
    ]
    return msgspec.structs.replace(fleet, domains=domains)


def _go_as_wanted(problem: Problem, host: str, wanted: Mapping[str, str]) -> None:
    """Move what runs on a host to where it is wanted, as far as it may go there."""
    numbers = {name: number for number, name in enumerate(problem.hosts)}
    for number, domain in enumerate(problem.fleet.domains):
        item, target = problem.item_of[number], numbers.get(wanted.get(domain.name, ""), -1)
        is_there = target >= 0 and problem.state.host[item] == numbers[host]
        if is_there and problem.model.movable[item] and np.isfinite(item_cost(problem.table, item, target)):
            take_item(problem.table, item)
            put_item(problem.table, item, target)


def _go_to(problem: Problem, host: Integers) -> None:
    """Put every item where an assignment has it."""
    moving = [int(item) for item in np.flatnonzero(host != problem.state.host)]
    for item in moving:
        take_item(problem.table, item)
    for item in moving:
        put_item(problem.table, item, int(host[item]))


def _target(problem: Problem, item: int, host: str) -> int:
    """Host that an item is to move to."""
    if not host:
        costs = np.empty(len(problem.hosts))
        item_scores(problem.table, item, costs)
        best = int(costs.argmin())
        if not np.isfinite(costs[best]):
            raise PlacementError(f"no other host takes {problem.item_name(item)}: {_words(problem, item)}")
        return best
    target = problem.host_index(host)
    if target == problem.state.host[item]:
        raise PlacementError(f"{problem.item_name(item)} runs on {host} already")
    if not np.isfinite(item_cost(problem.table, item, target)):
        why = reasons(problem, item).get(host, "")
        raise PlacementError(f"{host} does not take {problem.item_name(item)}: {why}")
    return target


def _words(problem: Problem, item: int) -> str:
    return "; ".join(f"{host}: {why}" for host, why in reasons(problem, item).items() if why)


def _stays(problem: Problem, item: int) -> str:
    """Reason for which an item may not move at all: that of the first of its domains that has one."""
    domains = [problem.fleet.domains[number] for number in problem.items[item]]
    for domain in domains:
        if domain.arriving:
            return f"it is migrating to {domain.arriving} already"
        if not domain.movable:
            others = f"{domain.name}, which moves with it: " if len(domains) > 1 else ""
            return others + (domain.stays or "it is marked as not movable")
    return ""


def _in_flight(fleet: Fleet, host: str) -> list[Unfinished]:
    """Domains that are on their way to or from a host by migrations that are under way."""
    found = []
    for one in fleet.domains:
        if one.arriving and host in {one.host, one.arriving}:
            way = f"from {one.host}" if one.arriving == host else f"to {one.arriving}"
            found.append(Unfinished(domain=one.name, host=host, why=f"it is migrating {way} just now", in_flight=True))
    return found


def _planned(problem: Problem, start: State, goal: Goal, cost: MoveCost, now: Fleet | None = None) -> Plan:
    """Order the decided moves, and check the plan; `now` is the fleet before a host of it was given up, if one was."""
    fleet = problem.fleet
    before = _figures(now or fleet, {one.name: one.host for one in fleet.domains if one.host})
    found = schedule(problem, start, cost)
    stuck = [
        Unfinished(
            domain=fleet.domains[number].name,
            host=problem.hosts[int(problem.state.host[item])],
            why=_stays(problem, item) or _words(problem, item),
        )
        for item in broken_items(problem)
        for number in problem.items[item]
        if item < len(problem.items) and not fleet.domains[number].arriving
    ]
    left = {one.domain: one for one in [*found.left, *stuck]}
    if goal.purpose == "drain":  # domains that stay on another host in maintenance are no failure of this drain
        there = {name: one for name, one in left.items() if one.host == goal.host}
        left = {one.domain: one for one in _in_flight(fleet, goal.host)} | there
    return Plan(
        goal=goal,
        steps=found.steps,
        left=list(left.values()),
        before=before,
        after=_figures(fleet, places(problem)),
        seconds=found.seconds,
    )


def places(problem: Problem) -> dict[str, str]:
    """Return the host of each domain that has one."""
    hosts = problem.state.host
    return {
        domain.name: problem.hosts[int(hosts[problem.item_of[number]])]
        for number, domain in enumerate(problem.fleet.domains)
        if hosts[problem.item_of[number]] >= 0
    }


def _figures(fleet: Fleet, where: dict[str, str]) -> Figures:
    found = list(levels(fleet, where).values()) or [0.0]
    return Figures(
        fullest=max(found),
        mean=float(np.mean(found)),
        deviation=float(np.std(found)),
        broken=len(violations(fleet, where)),
    )
