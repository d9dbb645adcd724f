"""Runs seeded scenarios on all processors, and keeps account of which ones ran on which code.

A scenario follows from its seed alone; what is printed comes in the seeds' order and is the same on any number of
processors. The account is a file of runs, one a piece of code and simulator: the trees of git that both are made of
name the code, so that a rebased commit keeps its runs.
"""

import gc
import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRESS = 200
"""Scenarios between two signs of life, and between two entries into the account."""
SHARE = 20
"""Scenarios that a process takes at once: some seconds, so that none waits long for the last."""
ROOT = Path(__file__).parents[1]

Outcome = Counter[str] | str
"""Counts of what happened in a scenario, or what did not hold."""


class Account:
    """The file of runs.

    Args:
        path: of the file.
        simulator: whose runs are added.
        trees: directories of the checkout whose content decides what a seed does.
    """

    def __init__(self, path: Path, simulator: str, trees: tuple[str, ...]) -> None:
        self._path = path
        self._simulator = simulator
        self._code = " ".join(_git("rev-parse", f"HEAD:{tree}")[:12] for tree in trees)
        if _git("status", "--porcelain", "--", *trees):
            raise SystemExit(f"commit first: {' '.join(trees)} differ from HEAD, so that nothing names this code")

    def _read(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._path.read_text())["runs"] if self._path.exists() else []
        return found

    def next_seed(self) -> int:
        """Say the first seed that was not yet run on this code."""
        return max((run["first"] + run["seeds"] for run in self._read() if self._is_ours(run)), default=1)

    def _is_ours(self, run: dict[str, Any]) -> bool:
        return (run["simulator"], run["code"]) == (self._simulator, self._code)

    def add(self, first: int, seeds: int, counts: Counter[str], failed: list[str]) -> None:
        """Add a row of seeds; one that goes on where another ended is counted with it."""
        runs = self._read()
        before = next((run for run in runs if self._is_ours(run) and run["first"] + run["seeds"] == first), None)
        if before is None:
            head = _git("log", "-1", "--format=%h %cI").split()
            before = {"simulator": self._simulator, "code": self._code, "commit": head[0], "date": head[1]}
            before |= {"first": first, "seeds": 0, "failed": [], "counts": {}}
            runs.append(before)
        before["seeds"] += seeds
        before["failed"] += failed
        before["counts"] = dict(Counter(before["counts"]) + counts)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
        new.replace(self._path)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def simulate_all(
    prepare: Callable[[], None], simulate: Callable[[int], Outcome], seeds: int, first: int, account: Account | None
) -> int:
    """Run scenarios and say what happened.

    Args:
        prepare: makes a process ready.
        simulate: runs the scenario of a seed.
        seeds: how many.
        first: seed; 0 goes on where the account ends.
        account: if given, runs are added to it, and one that fails does not end the others.

    Returns:
        0 if all held.
    """
    if account is not None and not first:
        first = account.next_seed()
    total, piece, fallen = Counter[str](), Counter[str](), list[str]()
    begun, held = first, 0
    with multiprocessing.Pool(len(os.sched_getaffinity(0)), prepare) as pool:
        for seed, outcome in enumerate(pool.imap(simulate, range(first, first + seeds), SHARE), first):
            if isinstance(outcome, str):
                print(outcome, flush=True)
                fallen.append(outcome.partition("\n")[0])
                if account is None:
                    return 1
            else:
                piece.update(outcome)
                held += 1
            done = seed + 1 - first
            if done % PROGRESS == 0 or done == seeds:
                total.update(piece)
                if account is not None:
                    account.add(begun, seed + 1 - begun, piece, fallen)
                print(f"sim: {held} scenarios held so far", flush=True)
                begun, piece, fallen = seed + 1, Counter(), []
    counted = ", ".join(f"{count} {what}" for what, count in total.items() if what != "cpu_ms")
    ended = "all held" if held == seeds else f"{seeds - held} DID NOT HOLD"
    print(f"{seeds} scenarios from seed {first}: {counted}, {total['cpu_ms'] / 1000:.0f} s of processors; {ended}")
    return 0 if held == seeds else 1


def freeze() -> None:
    """Keep the collector from looking through modules again and again: only what a scenario makes is looked through."""
    gc.collect()
    gc.freeze()


def arguments() -> tuple[int, int, Path | None]:
    """Read SEEDS, SEED and the account's file from the command line."""
    given = sys.argv[1:]
    return int(given[0]), int(given[1]), Path(given[2]) if len(given) > 2 else None
