"""Names to places: where a scope's pages lie, merged over its volumes.

    key u64     first half of a page's name, sorted; the other half is compared when the page was read
    place u64   volume << 32 | number of the page in it

16 bytes for each page held, one binary search a look-up. Names that two volumes share are found in the volume that was
added first: the caller adds those in memory before images, whose blocks are read from a disk.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.qemu.layout import Words

NOWHERE: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
"""In place of a place: no volume has it."""
VOLUMES_MAX: Final = 1 << 16
_SHIFT: Final = np.uint64(32)
_NUMBER: Final = np.uint64(0xFFFF_FFFF)

VolumeColumns = tuple[Words, NDArray[np.uint32]]
"""A volume's sorted keys, and the number of each page in it."""


class PageIndex:
    """Places of pages.

    Args:
        volumes: of each its columns; its number is its place in the list.

    Raises:
        ValueError: more than `VOLUMES_MAX`.
    """

    def __init__(self, volumes: Sequence[VolumeColumns]) -> None:
        if len(volumes) > VOLUMES_MAX:
            raise ValueError(f"{len(volumes)} volumes, at most {VOLUMES_MAX}")
        places = [
            numbers.astype(np.uint64) | np.uint64(volume) << _SHIFT for volume, (_, numbers) in enumerate(volumes)
        ]
        keys: Words = np.concatenate([keys for keys, _ in volumes] or [np.empty(0, np.uint64)])
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._places: Words = np.concatenate(places or [np.empty(0, np.uint64)])[order]

    def __len__(self) -> int:
        """Pages in it, with those that two volumes share counted twice."""
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self._keys.nbytes + self._places.nbytes

    def find(self, keys: Words) -> Words:
        """The place of each key, `NOWHERE` for those that are not there."""
        if not len(self._keys):
            return np.full(len(keys), NOWHERE, np.uint64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._places[at], NOWHERE)


def split_places(places: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Volumes and numbers of places, none of them `NOWHERE`."""
    return (places >> _SHIFT).astype(np.int64), (places & _NUMBER).astype(np.int64)
