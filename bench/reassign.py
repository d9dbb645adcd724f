#!/usr/bin/env python3
"""Machine reassignment of the ROADEF/EURO challenge 2012: our annealing, judged by an independent checker.

    bench/reassign.py --instances DIR [--seconds 60] [--names a1_1 ...] [--json]

DIR holds `model_NAME.txt` and `assignment_NAME.sol` (both as the challenge published them). Each instance gets
`--seconds` on two cores: two runs with different seeds at once, the better one counts. The gap is to the best of the
challenge's qualification round.
"""

import argparse
import json
import sys
from pathlib import Path

import msgspec

from dwcp_migrate.bench import roadef
from dwcp_migrate.bench.frame import Report, Row, commit, machine
from dwcp_migrate.bench.roadef_search import solve

CORES = 2


def main() -> None:
    """Solve the instances and print rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=Path, required=True)
    parser.add_argument("--names", nargs="+", default=list(roadef.BEST_KNOWN))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [row for name in options.names for row in measure(options.instances, name, options.seconds, options.seed)]
    for metric in ("gap_percent", "score_percent"):
        values = [row.value for row in rows if row.metric == metric]
        rows.append(_row("mean", metric, sum(values) / len(values), options.seconds))
    if options.json:
        report = Report(machine=machine(), commit=commit(), command=" ".join(sys.argv), rows=rows)
        print(json.dumps(msgspec.to_builtins(report), indent=2))


def measure(directory: Path, name: str, seconds: float, seed: int) -> list[Row]:
    """Solve one instance.

    Raises:
        SystemExit: an assignment breaks a constraint.
    """
    model = (directory / f"model_{name}.txt").read_text()
    instance = roadef.parse(model, (directory / f"assignment_{name}.sol").read_text())
    assignment = solve(instance, seconds, seed, CORES)
    if broken := roadef.violations(instance, assignment):
        raise SystemExit(f"{name}: {broken[:3]}")
    value, best = roadef.objective(instance, assignment), roadef.best_known(name)
    gap, score = (value / best - 1) * 100, (value - best) / roadef.objective(instance, instance.start) * 100
    print(f"{name}: {value} of {best}, {gap:+.3f} %, score {score:+.3f} %", file=sys.stderr)
    return [_row(name, "gap_percent", gap, seconds), _row(name, "score_percent", score, seconds)]


def _row(name: str, metric: str, value: float, seconds: float) -> Row:
    method = f"{seconds:g} s on {CORES} cores, simulated annealing, checked; "
    method += "to the best known" if metric == "gap_percent" else "to the best known, in objectives of the start"
    return Row(case=f"roadef/{name}", metric=metric, value=value, unit="%", n=1, method=method)


if __name__ == "__main__":
    main()
