"""Contention: hosts that have been too hot for too long, and the few moves that relieve them. No IO, no clock.

The rule: only use that lasts counts, never a promise and never a moment. A host is due once its level was above the
threshold in every sample for `hold_s`; a move is worth it only if it leaves its own host lower by `margin` and no other
above threshold less margin; a domain that moved rests for `cool_down_s`. A fleet in which nothing lasts is left alone.

    level = use of the scarcest resource / the host's capacity of it
"""

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from dwcp_migrate.placement.cost import MoveCost, PlacementPolicy, default_cost
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.plan import Goal, Plan, Step
from dwcp_migrate.placement.watch_settings import WatchSettings


def levels_by_use(fleet: Fleet, resources: Collection[str]) -> dict[str, float]:
    """Compute the level of each host that is up, by the use of its domains.

    Args:
        fleet: with measured loads; a domain without one uses nothing.
        resources: names of those that count.
    """
    used: dict[tuple[str, str], float] = {}
    for domain in fleet.domains:
        for resource in resources:
            key = (domain.host, resource)
            used[key] = used.get(key, 0.0) + domain.load.get(resource, 0.0)
    return {
        host.name: max(
            (used.get((host.name, one), 0.0) / host.capacity[one] for one in resources if host.capacity.get(one)),
            default=0.0,
        )
        for host in fleet.hosts
        if host.state == "up"
    }


def hot_since(
    before: Mapping[str, float], levels: Mapping[str, float], settings: WatchSettings, now: float
) -> dict[str, float]:
    """Since when each hot host is hot without a break.

    Args:
        before: the same at the look before.
        levels: of the hosts now; one without a level is not hot.
        settings: see there.
        now: seconds since the epoch.
    """
    return {host: before.get(host, now) for host, level in levels.items() if level > settings.threshold}


def due_hosts(since: Mapping[str, float], settings: WatchSettings, now: float) -> list[str]:
    """List the hosts that have been hot for long enough, by name.

    Args:
        since: time since when each hot host is hot, of `hot_since`.
        settings: see there.
        now: seconds since the epoch.
    """
    return sorted(host for host, at in since.items() if now - at >= settings.hold_s)


def plan_relief(  # noqa: PLR0913 - each a value of its own
    fleet: Fleet,
    hosts: Collection[str],
    resting: Collection[str],
    settings: WatchSettings,
    resources: Collection[str],
    *,
    policy: PlacementPolicy | None = None,
    cost: MoveCost = default_cost,
) -> Plan:
    """Plan the few moves that relieve some hosts; no steps where none is worth it.

    Args:
        fleet: with what its domains use.
        hosts: that are due.
        resting: domains that moved lately.
        settings: see there.
        resources: whose use decides.
        policy: of placement.
        cost: forecasts.
    """
    policy = replace(policy or PlacementPolicy(), moves_max=settings.moves_max)
    stays = [
        one if one.host in hosts else replace(one, movable=False, stays=one.stays or "its host is not hot")
        for one in fleet.domains
    ]
    from dwcp_migrate.placement.planner import plan_rebalance, rest_domains  # not to find a fleet in which none is hot

    asked = rest_domains(replace(fleet, domains=stays, balance=dict.fromkeys(resources, 1.0)), set(resting))
    plan = plan_rebalance(asked, policy, cost)
    kept = worth(fleet, plan.steps, hosts, settings, resources)
    return replace(plan, goal=Goal(purpose="rebalance"), steps=kept, left=[])


def worth(
    fleet: Fleet,
    steps: Iterable[Step],
    hosts: Collection[str],
    settings: WatchSettings,
    resources: Collection[str],
) -> list[Step]:
    """Choose the steps that pay: each leaves a hot host, keeps its destination cool and lowers enough.

    Args:
        fleet: with measured loads.
        steps: of a plan.
        hosts: that are due.
        settings: see there.
        resources: names of those that count.

    Returns:
        Steps numbered anew from 0.
    """
    load = {one.name: one.load for one in fleet.domains}
    has = {one.name: one.capacity for one in fleet.hosts}
    level = levels_by_use(fleet, resources)
    used = {(host.name, one): 0.0 for host in fleet.hosts for one in resources}
    for domain in fleet.domains:
        if domain.host in has:
            for one in resources:
                used[domain.host, one] += domain.load.get(one, 0.0)
    kept: list[Step] = []
    for step in sorted(steps, key=lambda one: one.number):
        if step.source not in hosts or step.after:
            continue
        if _level(used, has, step.source, resources) <= settings.threshold - settings.margin:
            continue  # it is cool by now
        there = {one: used[step.destination, one] + load[step.domain].get(one, 0.0) for one in resources}
        after = _level(
            {(step.destination, one): value for one, value in there.items()}, has, step.destination, resources
        )
        if after > settings.threshold - settings.margin or len(kept) >= settings.moves_max:
            continue
        for one in resources:
            used[step.destination, one] = there[one]
            used[step.source, one] -= load[step.domain].get(one, 0.0)
        kept.append(step)
    lowered = {host: level.get(host, 0.0) - _level(used, has, host, resources) for host in hosts if host in has}
    paying = [step for step in kept if lowered.get(step.source, 0.0) >= settings.margin]
    return [replace(step, number=number) for number, step in enumerate(paying)]


def _level(
    used: Mapping[tuple[str, str], float], has: Mapping[str, Mapping[str, float]], host: str, resources: Collection[str]
) -> float:
    return max((used[host, one] / has[host][one] for one in resources if has[host].get(one)), default=0.0)
