"""Migrations that this host's hook announced and that may arrive. No IO, no clock: `now` is an argument.

The rule: this host dials a waiting QEMU only if libvirt has prepared one, as its hook announced or as libvirt itself
says when it is asked. One announcement allows `SESSIONS_PER_ANNOUNCEMENT` sessions: QEMU's stream and libvirt's NBD
disk copy. While a session that used an announcement runs, the announcement stays: the memory follows hours after a
large disk. Once libvirt has told how the domain's migration ended, the announcement is removed.

    announce(uuid) ── use() ──> the oldest with a use left, preferring domains that the source names
                  ├── over(): its migration ended
                  └── expires `lifetime_s` after the announcement, or after the last session that used it ended
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

SESSIONS_PER_ANNOUNCEMENT: Final = 2
"""The stream with its multifd channels is one (one port), all disks together another."""

PENDING_MAX: Final = 1024
"""Announcements kept; the oldest makes room. libvirt prepares a handful of migrations at once."""


@dataclass(slots=True)
class Announcement:
    """One announced migration.

    Attributes:
        announced_at: on the caller's clock, seconds.
        at: when it was announced or last used, likewise.
        uses_left: sessions that it may still open.
        sessions: sessions that it opened and that run.
    """

    uuid: str
    name: str
    announced_at: float
    at: float
    uses_left: int = SESSIONS_PER_ANNOUNCEMENT
    sessions: int = 0


class Announcements:
    """Announced migrations, by UUID.

    Args:
        lifetime_s: how long an unused announcement stays good.
    """

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s = lifetime_s
        self._by_uuid: dict[str, Announcement] = {}

    def announce(self, uuid: str, name: str, now: float) -> None:
        """Enter an announcement; a second one for the same domain makes all of its uses available again.

        Args:
            uuid: of the domain.
            name: of the domain, as libvirt has it.
            now: the caller's clock, seconds.
        """
        before = self._by_uuid.pop(uuid, None)
        self._expire(now)
        while len(self._by_uuid) >= PENDING_MAX:
            del self._by_uuid[next(iter(self._by_uuid))]
        sessions = before.sessions if before else 0
        self._by_uuid[uuid] = Announcement(uuid, name, now, now, sessions=sessions)

    def knows(self, uuid: str) -> bool:
        """Whether the domain's migration was announced and has not ended, used up or not."""
        return uuid in self._by_uuid

    def returned(self, uuid: str, now: float) -> None:
        """Give a use back: the session that took it ended before any of its bytes reached QEMU.

        Args:
            uuid: as `use` returned it.
            now: the caller's clock, seconds.
        """
        found = self._by_uuid.get(uuid)
        if found is not None:
            found.uses_left = min(SESSIONS_PER_ANNOUNCEMENT, found.uses_left + 1)
        self.ended(uuid, now)

    def pending(self, now: float) -> list[Announcement]:
        """Announcements that have a use left, oldest first."""
        self._expire(now)
        return [found for found in self._by_uuid.values() if found.uses_left]

    def candidates(self, migrating: Collection[str], now: float) -> list[Announcement]:
        """Domains that a session which opens now may carry: those that the source names, then the others; oldest first.

        Domains that the source does not name stay candidates, because libvirt lists a domain's job some time after its
        connection is there: of four domains that left at once it listed one, and all four would have been taken for it.

        Args:
            migrating: UUIDs that leave the source now, as it says; without effect where none of them is announced here.
            now: the caller's clock, seconds.
        """
        self._expire(now)
        known = [found for found in self._by_uuid.values() if found.uses_left or found.sessions]
        named = [found for found in known if found.uuid in migrating]
        return [*named, *(found for found in known if found not in named and not found.sessions)] if named else known

    def use(self, candidates: Iterable[Announcement], now: float) -> str:
        """Take a use of the oldest candidate that has one left.

        Args:
            candidates: as `candidates` returned them, in that order.
            now: the caller's clock, seconds.

        Returns:
            UUID of the domain; empty where no candidate has a use left.
        """
        for found in candidates:
            if found.uses_left:
                found.uses_left -= 1
                found.sessions += 1
                found.at = now
                return found.uuid
        return ""

    def ended(self, uuid: str, now: float) -> None:
        """Note that a session ended to which `use` gave an announcement.

        Args:
            uuid: as `use` returned it.
            now: the caller's clock, seconds; the announcement's life counts from here again.
        """
        found = self._by_uuid.get(uuid)
        if found is not None:
            found.sessions = max(0, found.sessions - 1)
            found.at = now

    def over(self, uuid: str, began_at: float) -> None:
        """Remove an announcement whose migration has ended.

        One that came after the session began belongs to the next migration, and one that another session uses stays.

        Args:
            uuid: of the domain.
            began_at: when the session that ended began, on the caller's clock, seconds.
        """
        found = self._by_uuid.get(uuid)
        if found is not None and not found.sessions and found.announced_at <= began_at:
            del self._by_uuid[uuid]

    def _expire(self, now: float) -> None:
        good = now - self.lifetime_s
        self._by_uuid = {uuid: found for uuid, found in self._by_uuid.items() if found.sessions or found.at >= good}
