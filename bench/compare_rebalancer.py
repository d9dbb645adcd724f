"""Ours against Meta's `rebalancer` (PyPI), same fleets, one run; Python 3.12 or newer in a venv of its own.

    python3.12 -m venv build/rebalancer && build/rebalancer/bin/pip install rebalancer numba . && \
    build/rebalancer/bin/python -m bench.compare_rebalancer --json > bench/results/itp-rebalancer.json

Fleets of `bench.fleets.generate.skewed` (10 domains a host, CPU models, storage, networks, groups apart). Theirs: local
search with single moves and swaps, capacity of both resources and at most one of a group on a host as constraints,
what a host may not have as avoided, both resources balanced by squares (the formula that did best), one thread, the
given seconds at most. Ours: until the fullest host is no fuller than theirs, then who is not needed away goes home;
the time is thread CPU time of that search, the best of five; theirs the wall time of `solve()`; both without building
the problem. `ours_at_their_moves` goes on instead, until as many domains have moved as theirs. Moves are domains that
end on another host, and both assignments are judged by our own figures.
"""

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
from rebalancer import ProblemSolver, specs

from bench.fleets import generate
from bench.frame import commit, machine
from dwcp_migrate.placement.balance import bound, even_out, figures, moved, return_home
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.kernels.search import put_item, take_item
from dwcp_migrate.placement.model import Problem, build_problem

SQUARES = 2
ABSOLUTE = 1


def theirs(problem: Problem, fleet: Fleet, seconds: float) -> tuple[float, dict[str, str]]:
    """Seconds that `solve()` took, and its assignment."""
    solver = ProblemSolver(service_name="bench", service_scope="bench")
    solver.set_object_name("vm").set_container_name("host").disable_solution_summary()
    assignment: dict[str, list[str]] = {host.name: [] for host in fleet.hosts}
    for domain in fleet.domains:
        assignment[domain.host].append(domain.name)
    solver.set_assignment(assignment)
    for r, name in enumerate(problem.resources):
        solver.add_object_dimension(name, {domain.name: domain.demand[name] for domain in fleet.domains})
        room = {host.name: float(problem.capacity[r, h]) for h, host in enumerate(fleet.hosts)}
        solver.add_container_dimension(name, room)
        capacity = specs.CapacitySpec(name=f"room {name}", scope="host", dimension=name)
        solver.add_constraint(specs.ConstraintSpec(capacitySpec=capacity))
        balance = specs.BalanceSpec(name=f"even {name}", scope="host", dimension=name, formula=SQUARES)
        solver.add_goal(specs.GoalSpec(balanceSpec=balance), 1.0)
    if fleet.rules:
        solver.add_partition("apart", {rule.name: rule.domains for rule in fleet.rules})
        limit = specs.Limit(type=ABSOLUTE, globalLimit=1.0)
        apart = specs.GroupCountSpec(name="apart", scope="host", partitionName="apart", limit=limit)
        solver.add_constraint(specs.ConstraintSpec(groupCountSpec=apart))
    barred = [
        specs.AvoidAssignment(object=fleet.domains[v].name, scopeItems=[fleet.hosts[h].name])
        for v, h in zip(*np.nonzero(~np.isfinite(problem.model.barrier[problem.model.klass])), strict=True)
    ]
    if barred:
        avoid = specs.AvoidAssignmentsSpec(name="avoid", scope="host", assignments=barred)
        solver.add_constraint(specs.ConstraintSpec(avoidAssignmentsSpec=avoid))
    moves = [
        specs.MoveTypeSpec(singleMoveTypeSpec=specs.SingleMoveTypeSpec()),
        specs.MoveTypeSpec(swapMoveTypeSpec=specs.SwapMoveTypeSpec()),
    ]
    search = specs.LocalSearchSolverSpec(moveTypeList=moves, solveTime=int(seconds))
    solver.add_solver(specs.SolverSpec(localSearchSolverSpec=search))
    begin = time.perf_counter()
    solution: Any = solver.solve()
    return time.perf_counter() - begin, dict(solution["assignment"])


def compare(domains: int, hosts: int, seconds: float, seed: int) -> dict[str, Any]:
    """One fleet, both ways."""
    fleet = generate.skewed(np.random.Generator(np.random.PCG64(seed)), domains, hosts)
    problem = build_problem(fleet, PlacementPolicy(price_per_s=0.0, price_per_downtime_s=0.0))
    start = problem.state.copy()
    before = figures(problem)
    took, assignment = theirs(problem, fleet, seconds)
    for item, domain in enumerate(fleet.domains):
        take_item(problem.table, item)
        put_item(problem.table, item, problem.host_index(assignment[domain.name]))
    their_moves, their_top = moved(problem, start), figures(problem)
    found: list[tuple[float, int, float, float]] = []
    for _ in range(5):
        problem.restore(start)
        begin = time.thread_time()
        even_out(problem, start, their_top[0], 10**9)
        return_home(problem, start)
        top = figures(problem)
        found.append((time.thread_time() - begin, moved(problem, start), top[0], top[2]))
    ours = min(found)
    problem.restore(start)
    begin = time.thread_time()
    even_out(problem, start, 0.0, their_moves)
    further, further_s = figures(problem), time.thread_time() - begin
    return {
        "domains": len(fleet.domains),
        "hosts": hosts,
        "seed": seed,
        "bound": bound(problem),
        "start": {"fullest": before[0], "deviation": before[2]},
        "theirs": {"seconds": took, "moves": their_moves, "fullest": their_top[0], "deviation": their_top[2]},
        "ours": {"seconds": ours[0], "moves": ours[1], "fullest": ours[2], "deviation": ours[3]},
        "ours_at_their_moves": {
            "seconds": further_s,
            "moves": moved(problem, start),
            "fullest": further[0],
            "deviation": further[2],
        },
        "times_faster": took / ours[0],
    }


def main() -> None:
    """Compare, print a table or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--seconds", type=float, default=20.0, help="limit of their search")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [compare(hosts * 10, hosts, options.seconds, options.seed) for hosts in options.hosts]
    if options.json:
        report = {"machine": machine(), "commit": commit(), "command": " ".join(sys.argv), "rows": rows}
        print(json.dumps(report, indent=2))
        return
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
