"""Suite `itp`: placement. Latencies of one call, local optima, and accuracy against proven optima and planted ones.

One thread, thread CPU time (`us`, `ms`: the median of `n` calls unless the method says otherwise). Instances come from
`bench.fleets.generate` with seed 1, accuracy suites with seeds 1 to n.

    place/<vms>x<hosts>/<basic|complex>   the whole batch in one call of the kernel
    geo/<regions>/<dcs>/<vms>             the same with latencies and one host a datacentre
    utilisation/<hosts>                   mean, deviation, maximum, share beyond 0.8
    affinity/<vms>/<rules>/<kind>         one check of one rule for one host, out of a kernel that makes many
    rebalance/<hosts>                     from a skewed start to the local optimum of moves and swaps; then with chains
                                          (`planned`), from LARGE hosts on also on CORES cores (wall time)
    dynamic/<vms>x<hosts>                 one domain ends and one is placed
    accuracy/<suite>                      see `itp_accuracy`

`roadef/<instance>` is `bench/roadef/reassign.py`: its instances are not ours to keep.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from bench.fleets import generate
from bench.fleets.probe import check_rules
from bench.frame import Options, Row
from bench.suites import itp_accuracy
from dwcp_migrate.placement.arrays import APART, TOGETHER, State
from dwcp_migrate.placement.balance import ALONE, Workers, bound, even_out, moved, return_home
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Fleet, Kind, Rule
from dwcp_migrate.placement.kernel import COMPILED
from dwcp_migrate.placement.kernels.search import descend_steepest, place_items, relieve_fullest, take_item, utilisation
from dwcp_migrate.placement.model import Problem, build_problem

SEED: Final = 1
CALLS: Final = 2000
SLOW_CALLS: Final = 20

LARGE: Final = 500
"""Hosts; a plan for fewer takes less than starting threads is worth."""

CORES: Final = 2
ENGINE: Final = "compiled" if COMPILED else "interpreted"
FREE: Final = PlacementPolicy(price_per_s=0.0, price_per_downtime_s=0.0)


def rows(options: Options) -> list[Row]:
    """Measure all cases."""
    calls = CALLS // 20 if options.quick else CALLS
    found = [_overhead(calls)]
    for vms, hosts in ((10, 5), (50, 20), (100, 50)):
        found += [_place(vms, hosts, kind, calls) for kind in ("basic", "complex")]
    for regions, datacentres in ((3, 10), (5, 20), (10, 50)):
        found.append(_geo(regions, datacentres, 50, calls))
    found += [_utilisation(hosts, calls) for hosts in (10, 50, 100, 500, 1000)]
    for kind in ("apart", "together", "spread"):
        found.append(_affinity(200, 40, kind, calls))
    for hosts in (10, 50, 100) if options.quick else (10, 50, 100, 500, 1000):
        found += _rebalance(hosts, 3 if options.quick or hosts > 100 else SLOW_CALLS)  # noqa: PLR2004 - seconds
    found += [_dynamic(vms, hosts, calls) for vms, hosts in ((50, 20), (200, 100))]
    return [*found, *itp_accuracy.rows(options)]


def timed(call: Callable[[], object], prepare: Callable[[], object], calls: int) -> list[float]:
    """Thread CPU seconds of each call; `prepare` runs before each and is not counted."""
    found = []
    for _ in range(calls):
        prepare()
        begin = time.perf_counter_ns()
        call()
        found.append((time.perf_counter_ns() - begin) / 1e9)
    return found


def _nothing() -> None:
    """Prepare nothing."""


def _row(case: str, metric: str, value: float, unit: str, n: int, method: str) -> Row:
    return Row(case=case, metric=metric, value=value, unit=unit, n=n, method=f"{method}; {ENGINE}")


def _overhead(calls: int) -> Row:
    problem = build_problem(generate.mixed(_rng(), 10, 5))
    empty = np.arange(0)
    seconds = timed(lambda: place_items(problem.table, empty), _nothing, calls)
    method = "the kernel called with an empty batch: what a call costs before it does anything"
    return _row("place/0x5/call", "us", statistics.median(seconds) * 1e6, "us", calls, method)


def _place(vms: int, hosts: int, kind: str, calls: int) -> Row:
    fleet = generate.mixed(_rng(), vms, hosts, rules=kind == "complex")
    return _batch(
        f"place/{vms}x{hosts}/{kind}",
        fleet,
        calls,
        "two resources, the whole batch in one call"
        if kind == "basic"
        else "with CPU models, storage, networks and groups kept apart, all hard",
    )


def _geo(regions: int, datacentres: int, vms: int, calls: int) -> Row:
    fleet = generate.spread(_rng(), regions, datacentres, vms)
    return _batch(
        f"geo/{regions}/{datacentres}/{vms}",
        fleet,
        calls,
        "latency from each origin, capacity held, the whole batch in one call",
    )


def _batch(case: str, fleet: Fleet, calls: int, method: str) -> Row:
    problem = build_problem(fleet)
    size = (
        problem.model.demand * np.where(problem.capacity > 0, 1 / np.maximum(problem.capacity, 1e-9), 0).mean(axis=1)
    ).max(axis=1)
    items, empty = np.argsort(-size, kind="stable"), problem.state.copy()
    fitting = items[: place_all(problem, items, empty)]
    seconds = timed(lambda: place_items(problem.table, fitting), lambda: problem.restore(empty), calls)
    method = f"{method}; {len(fitting)} of {len(items)} domains fit"
    return _row(case, "us", statistics.median(seconds) * 1e6, "us", calls, method)


def place_all(problem: Problem, items: "np.ndarray[tuple[int], np.dtype[np.int64]]", empty: State) -> int:
    """How many of the items, in order, can be placed before one fits nowhere."""
    failed = int(place_items(problem.table, items))
    problem.restore(empty)
    return len(items) if failed < 0 else failed


def _utilisation(hosts: int, calls: int) -> Row:
    problem, out = build_problem(generate.skewed(_rng(), hosts * 2, hosts, rules=False)), np.zeros(4)
    seconds = timed(lambda: utilisation(problem.table, out), _nothing, calls)
    return _row(
        f"utilisation/{hosts}", "us", statistics.median(seconds) * 1e6, "us", calls, "two resources, four figures"
    )


def _affinity(vms: int, rules: int, kind: Kind, calls: int) -> Row:
    rng = _rng()
    fleet = generate.mixed(rng, vms, 20, rules=False)
    members = [rng.choice(vms, 5, replace=False) for _ in range(rules)]
    made = [
        Rule(name=f"r{n}", kind=kind, domains=[f"vm{one + 1}" for one in chosen], level="rack")
        for n, chosen in enumerate(members)
    ]
    problem = build_problem(Fleet(hosts=fleet.hosts, domains=fleet.domains, rules=made))
    assert (problem.model.kind == (TOGETHER if kind == "together" else APART)).all()
    checks = int(check_rules(problem.table))
    seconds = timed(lambda: check_rules(problem.table), _nothing, max(calls // 20, 5))
    method = f"{checks} checks of a rule for a domain on a host in one call"
    return _row(
        f"affinity/{vms}/{rules}/{kind}", "ns", statistics.median(seconds) / checks * 1e9, "ns", len(seconds), method
    )


def _rebalance(hosts: int, calls: int) -> Iterator[Row]:
    problem = build_problem(generate.skewed(_rng(), hosts * 10, hosts), FREE)
    start = problem.state.copy()

    def settle() -> None:
        relieve_fullest(problem.table, 10**6, 0.0)
        descend_steepest(problem.table, 10**6, 1e-3)
        relieve_fullest(problem.table, 10**6, 0.0)

    def chained(workers: Workers = ALONE) -> None:
        even_out(problem, start, 0.0, 10**6, workers)
        return_home(problem, start)

    case = f"rebalance/{hosts}"
    method = "from a skewed start to the local optimum of moves and swaps; 10 domains a host"
    yield from _settled(problem, case, "", timed(settle, lambda: problem.restore(start), calls), method, start)
    method = (
        "the same start, as a plan is made: fullest host first, ejection chains where that is stuck, who can goes home"
    )
    yield from _settled(problem, case, "planned_", timed(chained, lambda: problem.restore(start), 1), method, start)
    if hosts >= LARGE:
        with ThreadPoolExecutor(CORES) as threads:
            workers = Workers(threads.map, CORES)
            seconds = timed(lambda: chained(workers), lambda: problem.restore(start), 1)
        yield _row(case, f"planned_{CORES}_cores_ms", seconds[0] * 1e3, "ms", 1, f"{method}; the same plan, wall time")


def _settled(
    problem: Problem, case: str, prefix: str, seconds: list[float], method: str, start: State
) -> Iterator[Row]:
    """Rows with the result of a search."""
    out = np.zeros(4)
    utilisation(problem.table, out)
    figures = (
        ("ms", statistics.median(seconds) * 1e3, "ms"),
        ("moves", float(moved(problem, start)), "1"),
        ("max_utilisation", float(out[2]), "1"),
        ("gap_percent", (float(out[2]) / bound(problem) - 1) * 100, "%"),
    )
    for metric, value, unit in figures:
        yield _row(case, prefix + metric, value, unit, len(seconds), method)


def _dynamic(vms: int, hosts: int, calls: int) -> Row:
    problem = build_problem(generate.mixed(_rng(), vms, hosts))
    fitting = place_all(problem, np.arange(vms), problem.state.copy())
    place_items(problem.table, np.arange(fitting))
    batches = [np.array([item]) for item in range(fitting)]
    turn = iter(range(10**9))

    def event() -> None:
        item = next(turn) % fitting
        take_item(problem.table, item)
        place_items(problem.table, batches[item])

    seconds = timed(event, _nothing, calls)
    return _row(
        f"dynamic/{vms}x{hosts}",
        "us",
        statistics.median(seconds) * 1e6,
        "us",
        calls,
        "one event: a domain ends and one is placed, two calls of the kernel, all rules",
    )


def _rng() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(SEED))
