"""`python tests/mutants/run.py [FILE.json [NAME ...]]`: try each mutation, or some, in a copy of the checkout.

A mutant is killed when one of its tests fails. Who survived is printed, all results go to the file that is named.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_S_MAX = 240.0
"""A mutant that makes a test wait longer than that is noticed too."""
KILLED_SHARE_MIN = 0.95


def main() -> int:
    """Run all; returns 0 if enough were killed."""
    sys.path.insert(0, str(ROOT))
    from tests.mutants.table import MUTANTS

    wanted = set(sys.argv[2:]) or {mutant.name for mutant in MUTANTS}
    chosen = tuple(mutant for mutant in MUTANTS if mutant.name in wanted)
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        workers = len(os.sched_getaffinity(0))
        copies = [_copy(Path(directory) / str(number)) for number in range(workers)]
        with ThreadPoolExecutor(workers) as pool:
            shares = [pool.submit(_try_all, copies[number], chosen[number::workers]) for number in range(workers)]
            rows = [row for share in shares for row in share.result()]
    survivors = [row["name"] for row in rows if row["killed_by"] == ""]
    share = 1 - len(survivors) / len(rows)
    if len(sys.argv) > 1:
        result = {"mutants": len(rows), "killed_share": round(share, 3), "survivors": survivors, "rows": rows}
        Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
    print(f"mutants: {len(rows)} tried, {len(rows) - len(survivors)} killed; survivors: {survivors or 'none'}")
    return 0 if share >= KILLED_SHARE_MIN else 1


def _copy(target: Path) -> Path:
    for name in ("dwcp_migrate", "tests"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def _try_all(copy: Path, mutants: "tuple[object, ...]") -> list[dict[str, object]]:
    return [_try(copy, mutant) for mutant in mutants]


def _try(copy: Path, mutant: "object") -> dict[str, object]:
    from tests.mutants.table import Mutant

    assert isinstance(mutant, Mutant)
    path = copy / mutant.file
    good = path.read_text()
    began = time.monotonic()
    path.write_text(good.replace(mutant.old, mutant.new))
    try:
        killed_by = next((test for test in mutant.tests if not _passes(copy, test)), "")
    finally:
        path.write_text(good)
    seconds = round(time.monotonic() - began, 1)
    print(f"mutants: {'survived' if not killed_by else 'killed'} {mutant.name} ({seconds} s)", flush=True)
    return {"name": mutant.name, "file": mutant.file, "killed_by": killed_by, "seconds": seconds}


def _passes(copy: Path, test: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not lab and not long", test]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, timeout=TEST_S_MAX, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
