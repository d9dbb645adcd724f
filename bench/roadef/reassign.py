"""Machine reassignment of the ROADEF/EURO challenge 2012: our annealing, judged by an independent checker.

    python -m bench.roadef.reassign --instances DIR [--seconds 60] [--names a1_1 ...] [--json]

DIR holds `model_NAME.txt` and `assignment_NAME.sol` (both as the challenge published them). Each instance gets
`--seconds` on two cores: both anneal with seeds of their own and go on from the better one's result at each reheating.
"""

import argparse
import json
import sys
from pathlib import Path

import msgspec

from bench.frame import Report, Row, commit, machine
from bench.roadef import instance as roadef
from bench.roadef.search import solve

CORES = 2

NOUGHT = "a2_1"
"""Its best is 198 of 391 million at the start: a handful of moves more is many percent of that."""

METHODS = {
    "gap_percent": "above the best of the qualification round",
    "bound_percent": "above what is proven that nothing is below",
    "score_percent": "above the best of the qualification round, in objectives of the start, as the challenge scored",
}


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
    rows += means(rows, options.seconds)
    if options.json:
        words = ["DIR" if word == str(options.instances) else word for word in sys.argv]
        report = Report(machine=machine(), commit=commit(), command=" ".join(words), rows=rows)
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
    value, start = roadef.objective(instance, assignment), roadef.objective(instance, instance.start)
    best, bound = roadef.best_known(name), roadef.bound(name)
    figures = {
        "gap_percent": (value / best - 1) * 100,
        "bound_percent": (value / bound - 1) * 100,
        "score_percent": (value - best) / start * 100,
    }
    print(f"{name}: {value} of {best}, {figures}", file=sys.stderr)
    return [_row(name, metric, figure, seconds, 1) for metric, figure in figures.items()]


def means(rows: list[Row], seconds: float) -> list[Row]:
    """Mean of each figure; the gap of an instance whose best is next to nought counts in the score only."""
    found = []
    for metric in METHODS:
        values = [row.value for row in rows if row.metric == metric]
        if metric != "score_percent":
            values = [row.value for row in rows if row.metric == metric and row.case != f"roadef/{NOUGHT}"]
        if values:
            found.append(_row("mean", metric, sum(values) / len(values), seconds, len(values)))
    return found


def _row(name: str, metric: str, value: float, seconds: float, count: int) -> Row:
    method = f"{seconds:g} s on {CORES} cores, simulated annealing, checked; {METHODS[metric]}"
    return Row(case=f"roadef/{name}", metric=metric, value=value, unit="%", n=count, method=method)


if __name__ == "__main__":
    main()
