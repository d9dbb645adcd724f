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
from concurrent.futures import ThreadPoolExecutor
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
    rows = [measure(options.instances, name, options.seconds, options.seed) for name in options.names]
    gaps = [row.value for row in rows]
    rows.append(_row("mean", sum(gaps) / len(gaps), options.seconds, len(gaps)))
    if options.json:
        report = Report(machine=machine(), commit=commit(), command=" ".join(sys.argv), rows=rows)
        print(json.dumps(msgspec.to_builtins(report), indent=2))


def measure(directory: Path, name: str, seconds: float, seed: int) -> Row:
    """Solve one instance.

    Raises:
        SystemExit: an assignment breaks a constraint.
    """
    model = (directory / f"model_{name}.txt").read_text()
    instance = roadef.parse(model, (directory / f"assignment_{name}.sol").read_text())
    with ThreadPoolExecutor(CORES) as threads:
        found = list(threads.map(lambda number: solve(instance, seconds, seed + number), range(0, 1000, 1000 // CORES)))
    values = []
    for assignment in found:
        if broken := roadef.violations(instance, assignment):
            raise SystemExit(f"{name}: {broken[:3]}")
        values.append(roadef.objective(instance, assignment))
    gap = (min(values) / roadef.best_known(name) - 1) * 100
    print(f"{name}: {min(values)} of {roadef.best_known(name)}, {gap:+.3f} %, all runs {values}", file=sys.stderr)
    return _row(name, gap, seconds, CORES)


def _row(name: str, gap: float, seconds: float, count: int) -> Row:
    method = f"{seconds:g} s on {CORES} cores, simulated annealing, checked; to the qualification round's best"
    return Row(case=f"roadef/{name}", metric="gap_percent", value=gap, unit="%", n=count, method=method)


if __name__ == "__main__":
    main()
