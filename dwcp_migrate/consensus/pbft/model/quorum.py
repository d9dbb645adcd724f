"""Byzantine quorums: the arithmetic for any number of replicas.

Rule: of `size` replicas `faulty = (size - 1) // 3` may lie. Two quorums share at least `faulty + 1` replicas, so at
least one that tells the truth; `faulty + 1` equal statements contain one that is true; the replicas that tell the truth
are enough for a quorum. For `size = 3f + 1` a quorum is the `2f + 1` of Castro and Liskov (OSDI 1999, TOCS 2002); for
other sizes it is `ceil((size + faulty + 1) / 2)`, which their proof needs in its place.
"""

from typing import Final, NamedTuple

REPLICAS_MAX: Final = 31
"""Messages for a decision grow with the square; past ten replicas a decision takes longer than a round trip."""


class Quorum(NamedTuple):
    """The numbers that follow from the size.

    Attributes:
        size: replicas.
        faulty: how many may fail in any way at all.
        quorum: statements that decide.
        weak: equal statements of which at least one comes from a replica that tells the truth.
    """

    size: int
    faulty: int
    quorum: int
    weak: int


def quorum_of(size: int) -> Quorum:
    """Work out the numbers for `size` replicas.

    Raises:
        ValueError: `size` is not in 1..`REPLICAS_MAX`.
    """
    if not 1 <= size <= REPLICAS_MAX:
        raise ValueError(f"{size} replicas, 1 to {REPLICAS_MAX} can agree")
    faulty = (size - 1) // 3
    return Quorum(size, faulty, (size + faulty) // 2 + 1, faulty + 1)
