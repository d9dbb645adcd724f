"""`python tests/consensus/simulation/run.py SEEDS SEED [FILE.json]`: so many scenarios from SEED on.

It stops at one that fails. With a file none ends the others, the runs are kept there by the code that they ran on, and
SEED 0 goes on where they end (see `tests/scenario_pool.py`).
"""

import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.scenario_pool import Account, Outcome, arguments, freeze, simulate_all

TREES = ("dwcp_migrate/consensus", "tests/consensus/simulation")


def prepare() -> None:
    """Make a process ready."""
    import tests.consensus.simulation.scenario  # noqa: F401

    freeze()


def simulate(seed: int) -> Outcome:
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
    seeds, first, path = arguments()
    return simulate_all(prepare, simulate, seeds, first, Account(path, "pbft", TREES) if path else None)


if __name__ == "__main__":
    sys.exit(main())
