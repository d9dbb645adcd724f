"""Rebalancing: repair broken rules and capacities, then even out, with as few moves as that takes.

The rule here: a fleet in which no hard rule is broken and whose fullest host is within `Policy.balanced` of the
possible level is left alone. Otherwise, in this order:

    heal      steepest moves that each end a breach (drained hosts, overfull hosts, parted rules); chains for the rest
    relieve   the fullest host first, until the fleet is within half of `balanced`
    unlock    an ejection chain where no move and no swap helps, then relieve again
    polish    an exhaustive search where that is stuck and the fleet is tiny
    return    items that moved and are not needed away go home
    descend   moves that still gain more than their price: latency, soft rules, evenness; ruin and recreate where hosts
              are full

Each phase's measure falls strictly with each of its moves, and none undoes an earlier one's.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.placement.arrays import OVERLOADED, Floats, Integers, State
from dwcp_migrate.placement.kernels.chains import repack_hosts
from dwcp_migrate.placement.kernels.recreate import ruin_and_recreate
from dwcp_migrate.placement.kernels.search import descend_steepest, item_cost, put_item, relieve_fullest, take_item
from dwcp_migrate.placement.model import Problem
from dwcp_migrate.placement.solver.tiny import STEP, is_tiny, lowest_state

UNLOCK_ROUNDS: Final = 8
"""Chains tried, each for half of the way to the bound that is left."""

STEPS_MIN: Final = 200
STEPS_SHARE: Final = 10
"""Steps of a chain: STEPS_MIN, and one for so many items. Those that succeeded at 1000 hosts took 5 for 100 items."""

TRIES_ITEMS: Final = 400
"""A fleet of n items is tried this / n times."""

TRIES_MAX: Final = 30

LEVEL_STEP: Final = 2e-3
"""Share of the bound that is not worth another chain."""

ROUNDS_AN_ITEM: Final = 20
"""Of ruin and recreate, where places have a cost of their own."""

POLISH_GAIN: Final = 5e-4
"""Level that each move of a search of a tiny fleet has to lower the fullest host by."""

ANY_LEVEL: Final = 1e9


@dataclass(frozen=True, slots=True)
class Workers:
    """Threads that try chains, several levels at once. The result does not depend on their number.

    Attributes:
        across: `map`, or that of an executor; kernels leave Python's lock alone.
        count: of them.
    """

    across: Callable[[Callable[[float], State | None], Iterable[float]], Iterable[State | None]] = map
    count: int = 1


ALONE: Final = Workers()


def figures(problem: Problem) -> tuple[float, float, float]:
    """Level of the fullest host, mean and standard deviation over the hosts that are up."""
    levels = level_of_hosts(problem)
    return (float(levels.max()), float(levels.mean()), float(levels.std())) if len(levels) else (0.0, 0.0, 0.0)


def level_of_hosts(problem: Problem) -> Floats:
    """Levels of the hosts that are up."""
    up = [h for h, host in enumerate(problem.fleet.hosts) if host.state == "up"]
    levels: Floats = (problem.state.loaded * problem.model.inverse).max(axis=0, initial=0.0)[up]
    return levels


def bound(problem: Problem) -> float:
    """Return the least level of the fullest host: all demand over all capacity, or an item alone on its best host."""
    model, placed = problem.model, problem.state.host >= 0
    room = np.where(model.inverse > 0, problem.capacity, 0.0).sum(axis=1)
    total = model.load[placed].sum(axis=0)
    share = float(np.divide(total, room, out=np.zeros_like(total), where=room > 0).max(initial=0.0))
    for klass in range(len(model.barrier)):
        kinds = np.unique(model.inverse[:, np.isfinite(model.barrier[klass])], axis=1)  # few: hosts come in kinds
        items = np.flatnonzero(placed & (model.klass == klass))
        if kinds.size and len(items):
            alone = (model.load[items][:, :, None] * kinds[None]).max(axis=1).min(axis=1)
            share = max(share, float(alone.max()))
    return share


def broken_items(problem: Problem) -> list[int]:
    """List the items that break a hard rule or a capacity where they are."""
    placed = np.flatnonzero(problem.state.host >= 0)
    return [
        int(item)
        for item in placed
        if item_cost(problem.table, int(item), int(problem.state.host[item])) >= OVERLOADED / 2
    ]


def heal(problem: Problem) -> None:
    """End breaches, by as few moves as the steepest ones and chains take."""
    descend_steepest(problem.table, len(problem.items) * 2, OVERLOADED / 2)
    if any(problem.model.movable[item] for item in broken_items(problem)):
        _repack(problem, ANY_LEVEL)


def even_out(problem: Problem, start: State, target: float, moves_max: int, workers: Workers = ALONE) -> None:
    """Bring the fullest host down to `target`, or as far as moves, swaps and chains reach.

    Args:
        problem: its state is changed.
        start: where items were when the moves began to count.
        target: level.
        moves_max: items that may be elsewhere than in `start` at the end.
        workers: who tries chains.
    """
    relieve_fullest(problem.table, moves_max - moved(problem, start), target)
    lowest, rounds = max(target, bound(problem)), UNLOCK_ROUNDS
    while (top := figures(problem)[0]) > target:
        aims = list(_aims(top, lowest, rounds))
        failures, reached = _unlocked(problem, aims, workers)
        if reached is None:
            break
        rounds -= failures + 1
        lowest = aims[failures - 1] if failures else lowest
        before = problem.state.copy()
        problem.restore(reached)
        return_home(problem, start)
        if moved(problem, start) > moves_max:
            problem.restore(before)
            break
        relieve_fullest(problem.table, moves_max - moved(problem, start), target)
    _polish(problem, start, target, moves_max)


def _polish(problem: Problem, start: State, target: float, moves_max: int) -> None:
    """Search a tiny fleet for what moves, swaps and chains missed; see `even_out`."""
    top, lowest, before = figures(problem)[0], max(target, bound(problem)), problem.state.copy()
    if not is_tiny(problem) or top <= lowest * (1 + STEP):
        return
    reached = lowest_state(problem, top, lowest)
    if reached is None:
        return
    count = moved(problem, start)
    problem.restore(reached)
    return_home(problem, start)
    more = moved(problem, start) - count
    if moved(problem, start) > moves_max or top - figures(problem)[0] < POLISH_GAIN * more:
        problem.restore(before)


def _aims(top: float, lowest: float, rounds: int) -> Iterator[float]:
    """Levels to try one after another as long as each fails: half of the way that is left to the fullest host's."""
    for _ in range(rounds):
        if top - lowest < LEVEL_STEP * lowest:
            return
        lowest = (top + lowest) / 2
        yield lowest


def _unlocked(problem: Problem, aims: list[float], workers: Workers) -> tuple[int, State | None]:
    """The first of some levels that chains reach: how many failed before it, and the state there; None if all did."""

    def tried(aim: float) -> State | None:
        fork = problem.fork()
        return fork.state if _repack(fork, aim) else None

    for begin in range(0, len(aims), workers.count):
        for number, state in enumerate(workers.across(tried, aims[begin : begin + workers.count]), begin):
            if state is not None:
                return number, state
    return len(aims), None


def _repack(problem: Problem, aim: float) -> bool:
    """Try chains; a small fleet, where a try costs little, is tried several times."""
    items = len(problem.items)
    tries = max(1, TRIES_ITEMS // max(items, 1))
    steps_max = STEPS_MIN + items // STEPS_SHARE
    return any(repack_hosts(problem.table, aim, steps_max, seed) >= 0 for seed in range(min(tries, TRIES_MAX)))


def moved(problem: Problem, start: State) -> int:
    """Count the items that are elsewhere than they were.

    Args:
        problem: with its present state.
        start: the earlier state.
    """
    return int((problem.state.host != start.host).sum())


def return_home(problem: Problem, start: State) -> None:
    """Send items home that are not needed away: no rule breaks and the fullest host stays as full as it is.

    A breach that was healed stays healed: home bars who broke a rule there.

    Args:
        problem: its state is changed.
        start: the state with every item at home.
    """
    top, _, _ = figures(problem)
    state, model = problem.state, problem.model
    away = np.flatnonzero((state.host != start.host) & (start.host >= 0))
    for item in sorted((int(one) for one in away), key=lambda one: (-model.move_cost[one], one)):
        home, place = int(start.host[item]), int(state.host[item])
        level = float(((state.loaded[:, home] + model.load[item]) * model.inverse[:, home]).max(initial=0.0))
        if level > top or not np.isfinite(item_cost(problem.table, item, home)):
            continue
        take_item(problem.table, item)
        put_item(problem.table, item, home)
        assert problem.state.host[item] != place


def rebalance(problem: Problem, workers: Workers = ALONE) -> None:
    """Move items of a problem to where they should be.

    Args:
        problem: its state is changed.
        workers: threads that try chains.
    """
    policy, start = problem.policy, problem.state.copy()
    heal(problem)
    top, _, _ = figures(problem)
    possible = bound(problem)
    aim = possible + policy.balanced / 2
    if top > possible + policy.balanced:
        even_out(problem, start, aim, policy.moves_max, workers)
        return_home(problem, start)
    settled, before = problem.state.copy(), figures(problem)[0]
    gain_min = max(policy.gain_min, _least_gain(problem))
    descend_steepest(problem.table, policy.moves_max - moved(problem, start), gain_min)
    if problem.model.site_cost.any() or np.isfinite(problem.model.weight).any():
        ruin_and_recreate(problem.table, _dear_items(problem), ROUNDS_AN_ITEM * len(problem.items), 0.0, 1)
    if figures(problem)[0] > max(before, aim) or moved(problem, start) > policy.moves_max:
        problem.restore(settled)


def _dear_items(problem: Problem) -> Integers:
    """Items that would cost less elsewhere but for the others, and those that soft rules speak of."""
    model, host = problem.model, problem.state.host
    here = model.site_cost[model.site, np.maximum(host, 0)]
    soft = np.flatnonzero(np.isfinite(model.weight))
    ruled = np.zeros(len(host), np.bool_)
    for g in soft:
        ruled[model.members[model.members_begin[g] : model.members_begin[g + 1]]] = True
    cheapest = model.site_cost.min(axis=1)[model.site]
    found: Integers = np.flatnonzero((host >= 0) & ((here > cheapest) | ruled)).astype(np.int64)
    return found


def _least_gain(problem: Problem) -> float:
    """Gain of moving the largest item by the band's width: within the band evenness alone is no reason to move."""
    model = problem.model
    shares = (model.load[:, :, None] * model.inverse[None]).max(axis=(1, 2), initial=0.0) if len(model.load) else 0.0
    weights = float((model.price * problem.capacity**2).max(initial=0.0))
    return float(2 * weights * np.max(shares, initial=0.0) * problem.policy.balanced)
