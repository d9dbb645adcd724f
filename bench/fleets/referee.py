"""Exact answers for small fleets, and bounds for larger ones: the measure of the searches.

The rule here: an answer says whether it is proven. Needs the extra `referee`.

    fullest    CP-SAT (`exact`): the least level that the fullest host can have. Proven to about 15 domains on 5 hosts
               in well under a second; at 100 domains only a bound.
    nearest    HiGHS: the assignment of least cost (latency, soft pins) within capacity, from a sparse matrix; 100
               domains on 50 hosts in a second or two.

What is not modelled is refused rather than left out.
"""

from importlib import import_module
from typing import Any

import numpy as np

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.model import Problem
from dwcp_migrate.placement.solver.exact import Program, SolverEffort, SolverVerdict, check_kinds


def fullest(problem: Problem, seconds: float, seed: int = 1) -> SolverVerdict:
    """Find the least level that the fullest host can have with all items placed.

    Raises:
        PlacementError: a rule that is not modelled here, or OR-tools is not installed.
    """
    check_kinds(problem)
    return Program(problem, range(len(problem.items))).least_level(SolverEffort(seconds, seed=seed))


def nearest(problem: Problem, seconds: float) -> SolverVerdict:
    """Find the assignment with the least sum of `site_cost` within capacity; balance does not count.

    Raises:
        PlacementError: a rule that is not modelled here, or HiGHS is not installed.
    """
    check_kinds(problem)
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
        return SolverVerdict(float("inf"), float(info.mip_dual_bound), proven, np.zeros(0, np.int64))
    solution = np.array(solver.getSolution().col_value).reshape(items, hosts)
    return SolverVerdict(
        float(info.objective_function_value), float(info.mip_dual_bound), proven, solution.argmax(axis=1)
    )
