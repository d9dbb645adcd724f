"""`python tests.state.raft.simulation/run.py SEEDS SEED`: so many scenarios from SEED on; stops at one that fails.

A scenario follows from its seed alone, so they are shared out over the processors; what is printed comes in the seeds'
order and is the same on any number of them.
"""

import gc
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

PROGRESS = 1000
"""Scenarios between two signs of life."""
SHARE = 20
"""Scenarios that a process takes at once: under a second, so that none waits long for the last."""
ROOT = Path(__file__).parents[4]


def prepare() -> None:
    """Make a process ready: the modules stay, only what a scenario makes is looked through for garbage."""
    sys.path.insert(0, str(ROOT))
    import tests.state.raft.simulation.scenario  # noqa: F401

    gc.freeze()


def simulate(seed: int) -> Counter[str] | str:
    """Run a scenario; returns counts of what happened, or what did not hold."""
    from tests.state.raft.simulation.scenario import run

    began = time.process_time()
    try:
        done = run(seed)
    except AssertionError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever it is, it is the seed's
        return f"seed {seed}: {traceback.format_exc()}"
    return Counter(
        {
            "steps": done.world.steps,
            "faults": done.happened.total(),
            "confirmed": sum(1 for act in done.acts if act.token),
            "terms": max(done.world._leaders, default=0),
            "cpu_ms": round((time.process_time() - began) * 1000),
        }
    )


def main() -> int:
    """Run the scenarios and count what happened."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # the library goes through sets of names: their order is part of it
        os.execve(  # noqa: S606
            sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"}
        )
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
