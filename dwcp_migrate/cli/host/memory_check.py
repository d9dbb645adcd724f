"""The judgements of `dwcp-migrate doctor` about memory for migrations and about the page store."""

from typing import Final

from dwcp_migrate.api.usage import MemoryUse, StoreUse
from dwcp_migrate.cli.host.check import Check, advised_check
from dwcp_migrate.units import format_bytes

SILENT_S_MAX: Final = 600.0
"""The store is looked at once a minute; one that was not for so long is in a directory that hangs."""


def memory(use: MemoryUse) -> Check:
    """Judge whether one more migration could be accelerated now."""
    free = use.sessions_max > use.sessions or not use.budget_bytes  # an agent of an older version does not say
    granted = f"{format_bytes(use.granted_bytes)} of {format_bytes(use.budget_bytes)} granted"
    return advised_check(
        "memory",
        hold=free,
        what=f"{granted}, migrations accelerated: {use.sessions} now, {use.sessions_max} at most",
        why="sessions take a fifth at most of what the host has to spare; what there is no memory for is unaccelerated",
        remedy="wait for those that run, free memory on this host, or raise policy.memory_bytes_max and sessions_max",
    )


def judge_store(use: StoreUse, now: float) -> Check:
    """Judge whether the store can be used, and may grow as large as it was configured.

    Args:
        use: of a store that is on.
        now: seconds since the epoch.
    """
    hangs = 0 < use.looked_at < now - SILENT_S_MAX
    if use.error or hangs:
        return advised_check(
            "store",
            hold=False,
            what=use.error or f"{use.directory} has not answered for {(now - use.looked_at) / 60:.0f} min",
            why="migrations run without it, and send what it would have spared",
            remedy=f"see that the agent's user owns {use.directory}, with mode 0700, or set store.bytes_max = 0",
        )
    small = use.looked_at > 0 and use.room_bytes < use.bytes_max
    held = f"{format_bytes(use.held_bytes)} of {format_bytes(use.bytes_max)} held"
    return advised_check(
        "store",
        hold=not small,
        what=f"{held}, its file system has room for {format_bytes(use.room_bytes)}" if small else held,
        why="an eighth of the file system stays free: pages are evicted sooner than store.bytes_max says",
        remedy=f"give {use.directory} a larger file system (store.directory), or set store.bytes_max to what fits",
    )
