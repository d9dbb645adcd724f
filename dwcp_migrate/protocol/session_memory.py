"""Memory of a session: a grant, divided over the parts of its data process. No IO.

The rule: a grant bounds the memory of a data process beyond that of an idle one (24 MiB of its own, measured; no grant
counts them), whatever its peer does. Each part below is bounded by its share, so the sum is.

    overhead    threads, channels, compressors, the heap's slack
    window      raw bytes in flight; each costs `WINDOW_COPIES` times itself: as read, as sent, as it waits, in pieces
    page table  4 bytes for each page of the guest, at the source only
    page cache  the rest: last versions sent, with an index of them

Both ends divide their own grant; the smaller window and the smaller cache hold, see `control.Open` and `Opened`. A peer
of a version that names no window is met with `LEGACY_WINDOW_BYTES`, which costs this side `LEGACY_BYTES`.
"""

from typing import Final

import msgspec

from dwcp_migrate.units import GIB, KIB, MIB, PAGE_BYTES, format_bytes

FLOOR_BYTES: Final = 32 * MIB
"""The smallest grant: with less a session would hardly hold a window."""

OVERHEAD_BYTES: Final = 10 * MIB
"""Of a grant, for parts without a bound of their own."""

WINDOW_COPIES: Final = 4
WINDOW_BYTES_MIN: Final = 1 * MIB
WINDOW_BYTES_MAX: Final = 64 * MIB
"""320 ms at 200 MB/s of raw pages."""

WINDOW_SHARE: Final = 16
"""The window is at most that part of a grant: a fourth, as it costs `WINDOW_COPIES` times itself."""

TABLE_SHARE: Final = 4
"""The page table is at most that part of a grant; pages of the guest beyond it count as new each time."""

TABLE_BYTES_A_PAGE: Final = 4
TABLE_BYTES_MIN: Final = 128 * KIB
"""Of 128 MiB of guest memory, which is the least that is made."""

INDEX_BYTES_A_PAGE: Final = 40
"""Beside each page of the cache: hash, owner, and twice to four times a slot number."""

GUEST_BYTES_UNKNOWN: Final = 64 * GIB
"""Size that is assumed of a guest of unknown size."""

LEGACY_WINDOW_BYTES: Final = 64 * MIB
LEGACY_BYTES: Final = OVERHEAD_BYTES + WINDOW_COPIES * LEGACY_WINDOW_BYTES

WORKER_BYTES: Final = 8 * MIB
"""Of a thread that compresses: its context and the segment that it is at."""

CHANNEL_BYTES: Final = 512 * KIB
"""Of a channel: TLS and its unsent bytes."""


class SessionMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A grant, divided.

    Attributes:
        granted_bytes: all of it.
        cache_bytes: pages of the page cache.
        window_bytes: raw bytes in flight, either direction.
        table_bytes: page table of the source.
        workers_max: threads that compress or decompress.
        channels_max: of the link.
        is_agreed: the peer keeps to the window, too; otherwise it is of a version that has a fixed one.
    """

    granted_bytes: int
    cache_bytes: int
    window_bytes: int = WINDOW_BYTES_MAX
    table_bytes: int = 1 * GIB
    workers_max: int = 64
    channels_max: int = 512
    is_agreed: bool = True

    def described(self) -> str:
        """Describe the parts, for people."""
        parts = f"cache {format_bytes(self.cache_bytes)}, window {format_bytes(self.window_bytes)}"
        return f"{format_bytes(self.granted_bytes)} granted: {parts}"


NO_MEMORY: Final = SessionMemory(granted_bytes=0, cache_bytes=0)
"""Of a session that this agent did not begin: its data process keeps its former grant."""


def table_bytes(guest_bytes: int) -> int:
    """Return the size of a guest's page table; `guest_bytes` is 0 where it is not known."""
    return max(TABLE_BYTES_MIN, (guest_bytes or GUEST_BYTES_UNKNOWN) // PAGE_BYTES * TABLE_BYTES_A_PAGE)


def need_bytes(cache_bytes: int, guest_bytes: int = 0, *, has_table: bool, window_bytes: int = WINDOW_BYTES_MAX) -> int:
    """Return the largest grant that a session could make use of.

    Args:
        cache_bytes: page cache that both ends would keep, as configured.
        guest_bytes: memory of the guest; 0 is not known.
        has_table: the source has a page table.
        window_bytes: that both ends would let in.
    """
    cache = min(cache_bytes, guest_bytes) if guest_bytes else cache_bytes
    table = table_bytes(guest_bytes) if has_table else 0
    # Twice the shares' remainders: the division below gives window and table their part first.
    whole = OVERHEAD_BYTES + WINDOW_COPIES * window_bytes + table + _with_index(cache)
    return max(FLOOR_BYTES, whole, WINDOW_SHARE * window_bytes, TABLE_SHARE * table)


def divide_grant(
    grant: int, cache_bytes: int, guest_bytes: int = 0, *, has_table: bool, window_bytes: int = WINDOW_BYTES_MAX
) -> SessionMemory:
    """Divide a grant.

    Args:
        grant: bytes, at least `FLOOR_BYTES`.
        cache_bytes: most that the page cache may be, as configured.
        guest_bytes: memory of the guest; 0 is not known.
        has_table: the source has a page table.
        window_bytes: that both ends would let in.
    """
    window = min(max(grant // WINDOW_SHARE, WINDOW_BYTES_MIN), window_bytes)
    table = min(table_bytes(guest_bytes), grant // TABLE_SHARE) if has_table else 0
    rest = max(0, grant - OVERHEAD_BYTES - WINDOW_COPIES * window - table)
    cache = min(cache_bytes, rest * PAGE_BYTES // (PAGE_BYTES + INDEX_BYTES_A_PAGE))
    return SessionMemory(
        granted_bytes=grant,
        cache_bytes=cache,
        window_bytes=window,
        table_bytes=table,
        workers_max=max(1, grant // (4 * WORKER_BYTES)),
        channels_max=max(4, grant // (8 * CHANNEL_BYTES)),
    )


def agree_on_sizes(memory: SessionMemory, cache_bytes: int, window_bytes: int) -> SessionMemory:
    """Take the smaller of both ends' sizes, and give back what they leave of the grant.

    Args:
        memory: this end's.
        cache_bytes: the peer's.
        window_bytes: the peer's; 0 from one of a version that has a fixed window.
    """
    cache, window = min(memory.cache_bytes, cache_bytes), min(memory.window_bytes, window_bytes or memory.window_bytes)
    kept_back = WINDOW_COPIES * (window if window_bytes else LEGACY_WINDOW_BYTES)
    used = max(FLOOR_BYTES, OVERHEAD_BYTES + kept_back + memory.table_bytes + _with_index(cache))
    return msgspec.structs.replace(
        memory,
        granted_bytes=min(memory.granted_bytes, used),
        cache_bytes=cache,
        window_bytes=window,
        is_agreed=bool(window_bytes),
    )


def incoming_bytes_max(window_bytes: int, connections: int, floor_bytes: int) -> int:
    """Return the most bytes of the peer's that may wait for this side's QEMU, or for their missing pieces.

    An honest peer has its window in flight, as much again for what a running guest waits for, and each connection's
    floor; the rest is for segments that were cut before the window shrank.

    Args:
        window_bytes: that both agreed on.
        connections: of QEMU's, so far.
        floor_bytes: that each may have in flight however full the window is.
    """
    return WINDOW_COPIES * window_bytes + min(connections, FLOORS_COUNTED_MAX) * floor_bytes


FLOORS_COUNTED_MAX: Final = 260
"""A main channel, 255 multifd channels and a few others; more than that an honest QEMU does not open."""


def _with_index(cache_bytes: int) -> int:
    return cache_bytes // PAGE_BYTES * (PAGE_BYTES + INDEX_BYTES_A_PAGE)
