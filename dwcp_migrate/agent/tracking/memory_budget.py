"""One budget of memory for all sessions of this host, so that guests keep theirs.

The rule: the budget is computed when a session begins, and is at most a fifth of the memory that the host then has to
spare. A migration without memory for its session runs unaccelerated; running sessions are never shrunk or ended.

    budget     the smaller of `policy.memory_bytes_max` and a fifth of (available + granted already)
    reserved   the floor for each session that may still come: `policy.sessions_max`, or as many as the budget holds
    granted    a quarter of what is free beyond that; at least the floor, at most what the session could use

So the first session of a host gets much, a wave of them get less each, and the last that is allowed still gets the
floor. How a grant is divided is `protocol.session_memory`'s.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.usage import MemoryUse
from dwcp_migrate.errors import NoMemoryError
from dwcp_migrate.protocol.control import Open, Warm
from dwcp_migrate.protocol.session_memory import (
    FLOOR_BYTES,
    LEGACY_BYTES,
    LEGACY_WINDOW_BYTES,
    SessionMemory,
    agree_on_sizes,
    divide_grant,
    need_bytes,
)
from dwcp_migrate.units import KIB, format_bytes

SHARE_OF_HOST: Final = 5
"""The budget is that part of what the host has to spare."""

SHARE_OF_FREE: Final = 4
"""A grant is that part of what is free beyond the reserve."""

_AVAILABLE = re.compile(rb"^MemAvailable:\s+(\d+) kB", re.MULTILINE)


def available_bytes(path: Path = Path("/proc/meminfo")) -> int:
    """Memory that could be had without swapping, as the kernel estimates it; what is free where it does not say."""
    try:
        found = _AVAILABLE.search(path.read_bytes())
    except OSError:
        found = None
    if found is None:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(found[1]) * KIB


def budget_bytes(available: int, granted: int, bytes_max: int) -> int:
    """Memory that all sessions together may occupy now.

    Args:
        available: memory that the host has to spare, in bytes.
        granted: to sessions that run.
        bytes_max: as configured; 0 is no bound of its own.
    """
    share = (available + granted) // SHARE_OF_HOST
    return min(share, bytes_max) if bytes_max else share


def grant_bytes(budget: int, granted: int, running: int, sessions_max: int, need: int, least: int) -> int:
    """Grant for one more session; 0 where there is no memory for it.

    Args:
        budget: of all.
        granted: of it, so far.
        running: sessions that have a grant.
        sessions_max: as configured.
        need: the most that this one could use.
        least: the least that it can do with.
    """
    free = budget - granted
    if free < least:
        return 0
    places = min(sessions_max, budget // FLOOR_BYTES)
    reserved = FLOOR_BYTES * max(0, places - running - 1)
    share = max(least, (free - reserved) // SHARE_OF_FREE)
    return min(share, max(need, least))


class MemoryBudget:
    """The grants of memory to sessions.

    Args:
        bytes_max: `policy.memory_bytes_max` in force; 0 is none.
        sessions_max: `policy.sessions_max` in force.
        available: asks the host.
    """

    def __init__(
        self,
        bytes_max: Callable[[], int],
        sessions_max: Callable[[], int],
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._bytes_max = bytes_max
        self._sessions_max = sessions_max
        self._available = available
        self._granted: dict[str, int] = {}

    @property
    def granted_bytes(self) -> int:
        """To all sessions together."""
        return sum(self._granted.values())

    @property
    def budget_bytes(self) -> int:
        """As it is now."""
        return budget_bytes(self._available(), self.granted_bytes, self._bytes_max())

    def grant(self, identity: str, need: int, least: int = FLOOR_BYTES) -> int:
        """Grant a session memory, 0 where there is none; what it had before is given back.

        Args:
            identity: of its record.
            need: the most that it could use, in bytes.
            least: the least that it can do with.
        """
        self.release(identity)
        granted = self.granted_bytes
        budget = budget_bytes(self._available(), granted, self._bytes_max())
        share = grant_bytes(budget, granted, len(self._granted), self._sessions_max(), need, least)
        if share:
            self._granted[identity] = share
        return share

    def for_source(self, identity: str, cache_bytes: int, guest_bytes: int) -> SessionMemory:
        """Grant and divide what the source of a migration may occupy.

        Args:
            identity: of its record.
            cache_bytes: page cache as configured.
            guest_bytes: memory of the guest; 0 is not known.

        Raises:
            NoMemoryError: there is none.
        """
        granted = self.grant(identity, need_bytes(cache_bytes, guest_bytes, has_table=True))
        if not granted:
            raise NoMemoryError(self.refusal())
        return divide_grant(granted, cache_bytes, guest_bytes, has_table=True)

    def for_destination(self, identity: str, asked: Open | Warm, cache_bytes: int) -> SessionMemory:
        """Grant memory to the destination's side of a migration, and divide it.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            asked: the source's request; one of an agent before 0.2.0 names no window, and gets its fixed sizes.
            cache_bytes: `encoding.cache_bytes` of this host.

        Raises:
            NoMemoryError: there is none to grant.
        """
        cache = min(cache_bytes, asked.cache_bytes)
        window = asked.window_bytes or LEGACY_WINDOW_BYTES
        least = FLOOR_BYTES if asked.window_bytes else LEGACY_BYTES
        granted = self.grant(identity, need_bytes(cache, has_table=False, window_bytes=window), least)
        if not granted:
            raise NoMemoryError(self.refusal(least))
        if not asked.window_bytes:
            cache = min(cache, granted - LEGACY_BYTES)
        return self.agree(
            identity, divide_grant(granted, cache, has_table=False, window_bytes=window), cache, asked.window_bytes
        )

    def agree(self, identity: str, memory: SessionMemory, cache_bytes: int, window_bytes: int) -> SessionMemory:
        """Lower a session's memory to the sizes that the peer agreed to; the rest is free again.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            memory: as it was granted here.
            cache_bytes: the peer's cache.
            window_bytes: the peer's window; 0 of an agent that names none.
        """
        agreed = agree_on_sizes(memory, cache_bytes, window_bytes)
        self.keep(identity, agreed.granted_bytes)
        return agreed

    def keep(self, identity: str, granted: int) -> None:
        """Set what a session holds: less than it was granted, or what the agent before this one granted.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            granted: bytes.
        """
        self._granted[identity] = granted

    def release(self, identity: str) -> None:
        """A session is over, or never began."""
        self._granted.pop(identity, None)

    def observe(self, before: Migration | None, record: Migration) -> None:
        """Release a session's memory once its migration has ended or passes through; a subscriber of the registry.

        Args:
            before: the record before the change; not used.
            record: after it.
        """
        del before
        if record.state == "ended" or record.passthrough_reason:
            self.release(record.id)

    def use(self) -> MemoryUse:
        """For status, metrics and `doctor`."""
        budget = self.budget_bytes
        return MemoryUse(
            budget_bytes=budget,
            granted_bytes=self.granted_bytes,
            sessions=len(self._granted),
            sessions_max=min(
                self._sessions_max(), len(self._granted) + max(0, budget - self.granted_bytes) // FLOOR_BYTES
            ),
        )

    def refusal(self, least: int = FLOOR_BYTES) -> str:
        """Reason for which there was no memory, for people."""
        budget = self.budget_bytes
        return (
            f"a session takes at least {format_bytes(least)}; of {format_bytes(budget)} that migrations may take now,"
            f" {format_bytes(max(0, budget - self.granted_bytes))} are free"
        )
