"""Exact answers for small fleets, and bounds for larger ones: what the searches are measured against.

The rule here: an answer says whether it is proven. Needs the extra `referee`; a plan for a few critical domains may
ask for it too.

    fullest    CP-SAT: the least level that the fullest host can have. Proven to about 15 domains on 5 hosts in well
               under a second; at 100 domains only a bound.
    nearest    HiGHS: the assignment of least cost (latency, soft pins) within capacity, from a sparse matrix; 100
               domains on 50 hosts in a second or two.

Capacity, eligibility and `apart` rules on hosts are modelled; other rules are refused rather than left out.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.arrays import APART, Integers
from dwcp_migrate.placement.model import Problem

SCALE: Final = 10**6
"""CP-SAT counts in integers: levels in millionths."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the solver says.

    Attributes:
        value: objective of its best assignment; infinite if it has none.
        bound: nothing is below this.
        proven: value and bound meet.
        host: (V,) its assignment, empty if it has none.
    """

    value: float
    bound: float
    proven: bool
    host: Integers


def _checked(problem: Problem) -> None:
    model = problem.model
    judged = [
        g
        for g in range(len(model.kind))
        if model.kind[g] != APART or model.level[g] != 0 or np.isfinite(model.weight[g])
    ]
    if judged or model.cells_needed.any():
        raise PlacementError("the referee knows capacity, eligibility and hard `apart` rules on hosts only")


def fullest(problem: Problem, seconds: float, seed: int = 1) -> Verdict:
    """Find the least level that the fullest host can have with all items placed.

    Raises:
        PlacementError: a rule that is not modelled here, or OR-tools is not installed.
    """
    _checked(problem)
    try:
        cp_model: Any = import_module("ortools.sat.python.cp_model")
    except ImportError as error:
        raise PlacementError("OR-tools is not installed", hint="pip install 'dwcp-migrate[referee]'") from error
    model = problem.model
    program = cp_model.CpModel()
    items, hosts = len(model.demand), len(problem.hosts)
    chosen: Any = [
        [program.new_bool_var("") if np.isfinite(model.barrier[model.klass[v], h]) else None for h in range(hosts)]
        for v in range(items)
    ]
    for v in range(items):
        program.add_exactly_one([one for one in chosen[v] if one is not None])
    top = program.new_int_var(0, 2 * SCALE, "top")
    for h in range(hosts):
        on_host = [v for v in range(items) if chosen[v][h] is not None]
        for r in range(model.demand.shape[1]):
            needed = [round(model.demand[v, r] * 1000) for v in on_host]
            program.add(
                sum(a * chosen[v][h] for a, v in zip(needed, on_host, strict=True))
                <= int(problem.capacity[r, h] * 1000)
            )
            if model.inverse[r, h] > 0:
                shares = [round(model.load[v, r] * model.inverse[r, h] * SCALE) for v in on_host]
                program.add(sum(a * chosen[v][h] for a, v in zip(shares, on_host, strict=True)) <= top)
        for g in range(len(model.kind)):
            members = model.members[model.members_begin[g] : model.members_begin[g + 1]]
            program.add(sum(chosen[v][h] for v in members if chosen[v][h] is not None) <= int(model.limit[g]))
    program.minimize(top)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    status = solver.solve(program)
    if status not in {cp_model.OPTIMAL, cp_model.FEASIBLE}:
        return Verdict(
            float("inf"), solver.best_objective_bound / SCALE, status == cp_model.INFEASIBLE, np.zeros(0, np.int64)
        )
    host = np.array(
        [
            next(h for h in range(hosts) if chosen[v][h] is not None and solver.value(chosen[v][h]))
            for v in range(items)
        ],
        np.int64,
    )
    return Verdict(
        solver.objective_value / SCALE, solver.best_objective_bound / SCALE, status == cp_model.OPTIMAL, host
    )


def nearest(problem: Problem, seconds: float) -> Verdict:
    """Find the assignment with the least sum of `site_cost` within capacity; balance does not count.

    Raises:
        PlacementError: a rule that is not modelled here, or HiGHS is not installed.
    """
    _checked(problem)
    if len(problem.model.kind):
        raise PlacementError("`nearest` knows capacity and eligibility only")
    try:
        highspy: Any = import_module("highspy")
    except ImportError as error:
        raise PlacementError("HiGHS is not installed", hint="pip install 'dwcp-migrate[referee]'") from error
    model = problem.model
    items, hosts = len(model.demand), len(problem.hosts)
    resources = model.demand.shape[1]
    cost = model.site_cost[model.site]
    open_to = np.isfinite(model.barrier[model.klass])
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", seconds)
    solver.setOptionValue("mip_rel_gap", 0.0)
    rows = items + resources * hosts
    lower = np.concatenate((np.ones(items), np.full(resources * hosts, -highspy.kHighsInf)))
    upper = np.concatenate((np.ones(items), problem.capacity.reshape(-1)))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = items * hosts, rows
    lp.col_cost_ = cost.reshape(-1)
    lp.col_lower_, lp.col_upper_ = np.zeros(items * hosts), open_to.reshape(-1).astype(np.float64)
    lp.row_lower_, lp.row_upper_ = lower, upper
    lp.integrality_ = [highspy.HighsVarType.kInteger] * (items * hosts)
    # Column (v, h): one in row v, and the demand of v in the row of (r, h).
    h = np.tile(np.arange(hosts), items)
    v = np.repeat(np.arange(items), hosts)
    index = np.stack((v, *(items + r * hosts + h for r in range(resources))), axis=1)
    value = np.stack((np.ones(items * hosts), *(model.demand[v, r] for r in range(resources))), axis=1)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.arange(items * hosts + 1) * (1 + resources)
    lp.a_matrix_.index_, lp.a_matrix_.value_ = index.reshape(-1), value.reshape(-1)
    solver.passModel(lp)
    solver.run()
    info = solver.getInfo()
    proven = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    if info.primal_solution_status != highspy.kSolutionStatusFeasible:
        return Verdict(float("inf"), float(info.mip_dual_bound), proven, np.zeros(0, np.int64))
    solution = np.array(solver.getSolution().col_value).reshape(items, hosts)
    return Verdict(float(info.objective_function_value), float(info.mip_dual_bound), proven, solution.argmax(axis=1))
