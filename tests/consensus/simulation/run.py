"""`python tests/consensus/simulation/run.py SEEDS SEED`: so many scenarios from SEED on; stops at one that fails.

A scenario follows from its seed alone, so they are shared out over the processors; what is printed comes in the seeds'
order and is the same on any number of them.
"""

import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path

PROGRESS = 1000
"""Scenarios between two signs of life."""
SHARE = 20
"""Scenarios that a process takes at once: under a second, so that none waits long for the last."""
ROOT = Path(__file__).parents[3]


def prepare() -> None:
    """Make a process ready: the modules stay, only what a scenario makes is looked through for garbage."""
    sys.path.insert(0, str(ROOT))
    import tests.consensus.simulation.scenario  # noqa: F401

    gc.freeze()


def simulate(seed: int) -> Counter[str] | str:
    """Run a scenario; returns counts of what happened, or what did not hold."""
    from tests.consensus.simulation.scenario import run

    began = time.process_time()
    try:
        done = run(seed)
    except AssertionError as error:
        return str(error)
    counters = [node.replica.counters for node in done.world.nodes.values()]
    return Counter(
        {
            "events": done.world.events,
            "checks": done.invariants.checked,
            "batches": len(done.invariants.batches),
            "views entered": max(each.views_entered for each in counters),
            "states fetched": sum(each.states_fetched for each in counters),
            "cpu_ms": round((time.process_time() - began) * 1000),
        }
    )


def main() -> int:
    """Run the scenarios and count what happened."""
    seeds, first = int(sys.argv[1]), int(sys.argv[2])
    total = Counter[str]()
    with multiprocessing.Pool(len(os.sched_getaffinity(0)), prepare) as pool:
        for done, outcome in enumerate(pool.imap(simulate, range(first, first + seeds), SHARE), 1):
            if isinstance(outcome, str):
                print(outcome, flush=True)
                return 1
            total.update(outcome)
            if done % PROGRESS == 0:
                print(f"sim: {done} scenarios held so far", flush=True)
    counted = ", ".join(f"{count} {what}" for what, count in total.items() if what != "cpu_ms")
    seconds = total["cpu_ms"] / 1000
    print(f"{seeds} scenarios from seed {first}: {counted}, {seconds:.0f} s of processors; all held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
