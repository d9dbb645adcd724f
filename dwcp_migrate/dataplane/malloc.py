"""The C allocator of a data process: freed megabytes are kept for the next segment.

glibc hands large blocks back to the kernel as soon as they are free, and each segment allocates the same few megabytes
again, so every page of them faults again: a tenth to a third of a data process's CPU time (docs/hde.md). The memory
that is kept is bounded by the bytes in flight at once, and by a part of the session's grant.
"""

import ctypes
from typing import Final

from dwcp_migrate.units import MIB

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""Names and values of malloc.h (glibc)."""
KEPT_BYTES: Final = 64 * MIB
"""Most free memory at the top of the heap that is kept. Twice a dozen segments of 2 MiB."""
KEPT_SHARE: Final = 8
"""That part of a session's grant at most."""
HEAP_BLOCK_BYTES_MAX: Final = 16 * MIB
"""Larger blocks (the page cache) still are mappings of their own."""


def keep_freed_memory(kept_bytes: int = KEPT_BYTES) -> bool:
    """Set the thresholds for this process; False where the C library has none (musl).

    Args:
        kept_bytes: free memory at the top of the heap that is kept.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt(M_ARENA_MAX, 1)  # the arenas of other threads are given back in 64 MiB heaps, whatever the thresholds
    kept_bytes = min(kept_bytes, KEPT_BYTES)
    return bool(mallopt(M_TRIM_THRESHOLD, kept_bytes)) and bool(mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES_MAX))
