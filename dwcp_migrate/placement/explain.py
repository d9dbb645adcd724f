"""Explanation of a plan in words: the reason for a host, and against each other one.

The rule here: every host gets one reason, the first that decides: why it takes nothing (`model.refusal`), a lack of
room, a rule, and last the cost by which it is worse.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from dwcp_migrate.placement.arrays import EPSILON
from dwcp_migrate.placement.kernels.search import item_cost, put_item, take_item
from dwcp_migrate.placement.model import Problem, refusal
from dwcp_migrate.placement.plan import Plan, Step
from dwcp_migrate.units import format_bytes

FORECASTERS: Final = {
    "agent": "the agent's prediction",
    "rates": "the plain model of precopy on measured rates",
    "model": "the plain model of precopy",
}


def reasons(problem: Problem, item: int) -> dict[str, str]:
    """Collect the reasons for which hosts may not have an item.

    Args:
        problem: its state counts.
        item: index.

    Returns:
        By host name; empty for hosts that may, and for the one that it is on.
    """
    found = {}
    for h, host in enumerate(problem.hosts):
        here = h == problem.state.host[item]
        bars = not here and not np.isfinite(item_cost(problem.table, item, h))
        found[host] = _reason(problem, item, h) if bars else ""
    return found


def _reason(problem: Problem, item: int, h: int) -> str:
    fleet, model, state = problem.fleet, problem.model, problem.state
    for number in problem.items[item]:
        domain = fleet.domains[number]
        bound = [
            rule
            for rule in fleet.rules
            if rule.hard and domain.name in rule.domains and rule.kind in {"pin", "exclude"}
        ]
        if why := refusal(fleet, domain, fleet.hosts[h], bound):
            return why
    for r, name in enumerate(problem.resources):
        if state.free[r, h] < model.demand[item, r] - EPSILON:
            return f"it has {max(0.0, state.free[r, h]):g} {name} free, {model.demand[item, r]:g} are needed"
    for name, why in _rules(problem, item, h):
        return f"rule {name}: {why}"
    return f"fewer than {model.cells_needed[item]} of its NUMA cells have room"


def _rules(problem: Problem, item: int, h: int) -> Iterator[tuple[str, str]]:
    """Hard counted rules that bar an item from a host, and how."""
    fleet, model = problem.fleet, problem.model
    zone = model.zone
    counted = [rule for rule in fleet.rules if rule.hard and rule.kind not in {"pin", "exclude"}]
    for rule in counted:
        names = {fleet.domains[number].name for number in problem.items[item]}
        if not names & set(rule.domains):
            continue
        level = {"host": 0, "rack": 1, "datacentre": 2, "region": 3}[rule.level]
        inside: list[str] = []
        outside: list[str] = []
        for name in rule.domains:
            other = problem.item_of[problem.domain_index(name)]
            where = int(problem.state.host[other])
            if other != item and where >= 0:
                (inside if zone[level, where] == zone[level, h] else outside).append(name)
        if rule.kind == "together" and outside:
            yield rule.name, f"{', '.join(outside)} would be elsewhere"
        if rule.kind != "together" and inside:
            yield rule.name, f"{', '.join(inside)} {'is' if len(inside) == 1 else 'are'} in that {rule.level}"


def explain_item(problem: Problem, item: int, chosen: int) -> list[str]:
    """Explain for each host why an item goes to `chosen` and not there.

    Args:
        problem: its state is as before the move.
        item: index.
        chosen: index of the host.

    Returns:
        Lines for people, the chosen host first.
    """
    barred = reasons(problem, item)
    at_chosen = item_cost(problem.table, item, chosen)
    lines = [f"{problem.item_name(item)} -> {problem.hosts[chosen]}: {_level_words(problem, item, chosen)}"]
    for h, host in enumerate(problem.hosts):
        if h == chosen:
            continue
        if h == problem.state.host[item]:
            lines.append(f"  {host}: it runs there; {_here(problem, h)}")
        elif barred[host]:
            lines.append(f"  {host}: no, {barred[host]}")
        else:
            more = item_cost(problem.table, item, h) - at_chosen
            how = (
                f"dearer by {more:.4f}"
                if more >= 0
                else f"cheaper by {-more:.4f}, but the plan as a whole is better so"
            )
            lines.append(f"  {host}: possible, {how} ({_level_words(problem, item, h)})")
    return lines


def _here(problem: Problem, h: int) -> str:
    if problem.fleet.hosts[h].state != "up":
        return "the host is to be emptied"
    level = float((problem.state.loaded[:, h] * problem.model.inverse[:, h]).max(initial=0.0))
    return f"the host is at {level * 100:.0f} %"


def _level_words(problem: Problem, item: int, h: int) -> str:
    level = ((problem.state.loaded[:, h] + problem.model.load[item]) * problem.model.inverse[:, h]).max(initial=0.0)
    return f"the host would be at {float(level) * 100:.0f} %"


def explain_plan(problem: Problem, plan: Plan) -> list[str]:
    """Explain for each step why it goes where it goes.

    Args:
        problem: of the fleet before the plan; its state is changed.
        plan: to explain.

    Returns:
        Lines for people.
    """
    lines: list[str] = []
    moved: dict[int, int] = {}
    for step in plan.steps:
        item = problem.item_of[problem.domain_index(step.domain)]
        destination = problem.host_index(step.destination)
        if moved.get(item) == destination:
            lines.append(_forecast_words(step))  # another domain of the same item
            continue
        lines += explain_item(problem, item, destination)
        lines.append(_forecast_words(step))
        take_item(problem.table, item)
        put_item(problem.table, item, destination)
        moved[item] = destination
    lines += [f"{left.domain} stays on {left.host}: {left.why}" for left in plan.left]
    return lines


def _forecast_words(step: Step) -> str:
    """Forecast of a step, and its origin."""
    figures = f"{step.seconds:.0f} s, downtime {step.downtime_s * 1000:.0f} ms, {format_bytes(step.wire_bytes)}"
    return f"  {step.domain} takes {figures} on the wire, by {FORECASTERS[step.forecast_by]}"
