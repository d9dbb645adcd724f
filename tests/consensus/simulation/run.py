"""`python tests/consensus/simulation/run.py SEEDS SEED`: so many scenarios from SEED on; stops at one that fails."""

import sys
import time
from pathlib import Path

PROGRESS = 1000
"""Scenarios between two signs of life."""
ROOT = Path(__file__).parents[3]


def main() -> int:
    """Run the scenarios and count what happened."""
    sys.path.insert(0, str(ROOT))
    from tests.consensus.simulation.scenario import run

    seeds, first = int(sys.argv[1]), int(sys.argv[2])
    events = checked = executed = views = fetched = 0
    began = time.process_time()
    for seed in range(first, first + seeds):
        try:
            done = run(seed)
        except AssertionError as error:
            print(error, flush=True)
            return 1
        events += done.world.events
        checked += done.invariants.checked
        executed += len(done.invariants.batches)
        counters = [node.replica.counters for node in done.world.nodes.values()]
        views += max(each.views_entered for each in counters)
        fetched += sum(each.states_fetched for each in counters)
        if (seed - first + 1) % PROGRESS == 0:
            print(f"sim: {seed - first + 1} scenarios held so far", flush=True)
    print(
        f"{seeds} scenarios from seed {first}: {events} events, {checked} checks, {executed} batches, "
        f"{views} views entered, {fetched} states fetched, {time.process_time() - began:.0f} s; all held"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
