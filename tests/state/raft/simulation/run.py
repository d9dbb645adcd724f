"""`python tests/state/raft/simulation/run.py SEEDS SEED [FILE.json]`: so many scenarios from SEED on.

It stops at one that fails. With a file none ends the others, the runs are kept there by the code that they ran on, and
SEED 0 goes on where they end (see `tests/scenario_pool.py`).
"""

import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.scenario_pool import Account, Outcome, arguments, freeze, simulate_all

TREES = ("dwcp_migrate/state", "tests/state/raft/simulation")


def prepare() -> None:
    """Make a process ready."""
    import tests.state.raft.simulation.scenario  # noqa: F401

    freeze()


def simulate(seed: int) -> Outcome:
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
    seeds, first, path = arguments()
    return simulate_all(prepare, simulate, seeds, first, Account(path, "raft", TREES) if path else None)


if __name__ == "__main__":
    sys.exit(main())
