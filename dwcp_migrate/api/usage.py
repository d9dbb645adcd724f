"""Answers of the control API about what this host spends on migrations: memory of sessions, and its page store."""

import msgspec


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of all migrations of a host.

    Attributes:
        budget_bytes: what they may occupy now, beside their idle data processes.
        granted_bytes: to those that run, accelerated.
        sessions: number of those that run, accelerated.
        sessions_max: number for which the budget suffices now.
    """

    budget_bytes: int = 0
    granted_bytes: int = 0
    sessions: int = 0
    sessions_max: int = 0


class FilledShare(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the page store that came from one source of pages."""

    pages: int = 0
    held_bytes: int = 0


class StoreUse(msgspec.Struct, frozen=True, kw_only=True):
    """The page store of a host, as it was looked at last, about once a minute.

    Attributes:
        directory: of the store.
        bytes_max: `store.bytes_max`; 0 where the store is off, and then nothing else is set.
        looked_at: when it was looked at, seconds since the epoch; 0 before, and then nothing below is known.
        room_bytes: what the file system lets it hold in all, at most `bytes_max`.
        fills: what it holds, by where it came from: `sent`, `received`, `image`.
        oldest_use_at: when the volume that goes next was of use last, seconds since the epoch; 0 where there is none.
        evicted_pages: that went because room was needed, since the store was made.
        error: why it cannot be used; empty when it can.
    """

    directory: str = ""
    bytes_max: int = 0
    looked_at: float = 0.0
    room_bytes: int = 0
    fills: dict[str, FilledShare] = {}
    oldest_use_at: float = 0.0
    evicted_pages: int = 0
    error: str = ""

    @property
    def held_bytes(self) -> int:
        """Bytes of all volumes."""
        return sum(share.held_bytes for share in self.fills.values())

    @property
    def pages(self) -> int:
        """Pages in all volumes."""
        return sum(share.pages for share in self.fills.values())
