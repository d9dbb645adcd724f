"""Choice of the volumes that go when room is needed: those that were of no use for longest, whole.

Deterministic: the same volumes with the same times lead to the same choice.
"""

from collections.abc import Iterable
from typing import NamedTuple


class VolumeUse(NamedTuple):
    """A volume as eviction sees it; the order of the fields is the order in which volumes go.

    Attributes:
        used_at: when a page of it was of use last, or it was made; seconds since the epoch.
        name: unique, the tie-break.
        held_bytes: on the shelf, its index included.
    """

    used_at: float
    name: str
    held_bytes: int


def expired(volumes: Iterable[VolumeUse], now: float, keep_s: float) -> list[str]:
    """Name the volumes that were of no use for `keep_s`, longest first.

    Args:
        volumes: all of the shelf.
        now: seconds since the epoch.
        keep_s: seconds.
    """
    return [found.name for found in sorted(volumes) if now - found.used_at >= keep_s]


def to_evict(volumes: Iterable[VolumeUse], bytes_max: int, wanted_bytes: int) -> list[str] | None:
    """Name the volumes that have to go so that more bytes fit.

    Args:
        volumes: all of the shelf.
        bytes_max: of the shelf.
        wanted_bytes: that are about to be written.

    Returns:
        Longest unused first; None if the bytes never fit.
    """
    held = sorted(volumes)
    excess = sum(found.held_bytes for found in held) + wanted_bytes - bytes_max
    if wanted_bytes > bytes_max:
        return None
    gone: list[str] = []
    for found in held:
        if excess <= 0:
            break
        gone.append(found.name)
        excess -= found.held_bytes
    return gone
