"""Segments that a missing page of the destination's store misled: which rejections it explains (pure).

A source names a page that a filter promises and the destination has not: that segment is rejected. Those behind it that
refer to what it was to keep fail too, until the source knows; word of them may come first. Rejections that no such page
explains mean that both page caches differ.
"""

from collections import deque
from typing import Final

MISLED_SEGMENTS_MAX: Final = 64
"""Behind one that names a page which is not there, that may refer to it: as many of the usual size are in flight."""
UNEXPLAINED_MAX: Final = 16
"""Rejections in a row that are put down to such a page without one having been found; then both caches are doubted."""


class MisledSegments:
    """See the head of this module; segments are named by their place among those that touch the page caches."""

    def __init__(self) -> None:
        self._naming: deque[int] = deque(maxlen=MISLED_SEGMENTS_MAX)
        self._misled = range(0)
        self._unexplained = 0

    def named(self, sequence: int) -> None:
        """Note that a segment names pages of the store."""
        self._naming.append(sequence)

    def missed(self, sequence: int, following: int) -> None:
        """Note that a page which a segment named is not there.

        Args:
            sequence: of the segment.
            following: of the next one that is classified: it refers to nothing of this one.
        """
        self._unexplained = 0
        if sequence in self._naming:  # of many only the last are kept
            self._naming.remove(sequence)
        self._extend(sequence, following)

    def explain(self, sequence: int, following: int) -> bool:
        """Tell whether a missing page explains the rejection of a segment that named none.

        Args:
            sequence: of the segment.
            following: as for `missed`.
        """
        if sequence in self._misled:
            self._extend(sequence, following)
            return True
        if not any(0 < sequence - named <= MISLED_SEGMENTS_MAX for named in self._naming):
            return False
        self._unexplained += 1
        return self._unexplained <= UNEXPLAINED_MAX

    def _extend(self, sequence: int, following: int) -> None:
        first = min(self._misled.start, sequence) if self._misled else sequence
        self._misled = range(first, following)
