"""Migrations that this host's hook announced and that may arrive. No IO, no clock: `now` is an argument.

The rule: nobody makes this host dial a waiting QEMU unless libvirt prepared one, as its hook says or it itself when it
is asked; and one announcement opens the door
`SESSIONS_PER_ANNOUNCEMENT` times: QEMU's stream and libvirt's NBD disk copy. While a session that used an announcement
runs, the announcement stays: the memory follows hours after a large disk. Once libvirt has said how the domain's
migration ended, nothing of it is left to claim.

    announce(uuid) ── use() ──> the oldest that still opens doors, preferring domains that the source names
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
        """Take in an announcement; a second one for the same domain opens all doors anew."""
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
        """A session that `use` gave `uuid` to ended before anything of it reached QEMU: its door is open again."""
        found = self._by_uuid.get(uuid)
        if found is not None:
            found.uses_left = min(SESSIONS_PER_ANNOUNCEMENT, found.uses_left + 1)
        self.ended(uuid, now)

    def pending(self, now: float) -> list[Announcement]:
        """Announcements that still open a door, oldest first."""
        self._expire(now)
        return [found for found in self._by_uuid.values() if found.uses_left]

    def candidates(self, migrating: Collection[str], now: float) -> list[Announcement]:
        """Domains that a session which opens now may carry: those that the source names, then the others; oldest first.

        A domain that the source does not name is none only once a session carries it: libvirt lists a domain's job as
        leaving some time after its connection is there. With four that leave at once it listed one of them, which all
        four would have been taken for.

        Args:
            migrating: UUIDs that leave the source now, as it says; none of them being announced here, they say nothing.
            now: the caller's clock.
        """
        self._expire(now)
        known = [found for found in self._by_uuid.values() if found.uses_left or found.sessions]
        named = [found for found in known if found.uuid in migrating]
        return [*named, *(found for found in known if found not in named and not found.sessions)] if named else known

    def use(self, candidates: Iterable[Announcement], now: float) -> str:
        """Open a door with the oldest candidate that still has one and return its UUID, empty if none has."""
        for found in candidates:
            if found.uses_left:
                found.uses_left -= 1
                found.sessions += 1
                found.at = now
                return found.uuid
        return ""

    def ended(self, uuid: str, now: float) -> None:
        """A session that `use` gave `uuid` to ended."""
        found = self._by_uuid.get(uuid)
        if found is not None:
            found.sessions = max(0, found.sessions - 1)
            found.at = now

    def over(self, uuid: str, began_at: float) -> None:
        """The migration of a domain ended, of which a session began at `began_at`.

        An announcement that came later is the next migration's; while another session of this one runs it stays.
        """
        found = self._by_uuid.get(uuid)
        if found is not None and not found.sessions and found.announced_at <= began_at:
            del self._by_uuid[uuid]

    def _expire(self, now: float) -> None:
        good = now - self.lifetime_s
        self._by_uuid = {uuid: found for uuid, found in self._by_uuid.items() if found.sessions or found.at >= good}
