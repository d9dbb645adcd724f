"""The short form of long tables: a third of the names, drawn by a seed that is printed (`MATRIX_SEED`, `make test`)."""

import random


def sampled(names: list[str], seed: str) -> list[str]:
    """Return all names, or a third of them drawn by a seed, in their order.

    Args:
        names: of the rows.
        seed: what is drawn follows from it; empty draws nothing away.
    """
    drawn = set(random.Random(seed).sample(sorted(names), len(names) // 3)) if seed else set(names)
    return [name for name in names if name in drawn]
