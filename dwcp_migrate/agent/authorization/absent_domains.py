"""Schedule of questions about domains that the record has on this host and that do not run: at once, then more rarely.

A guest may be shut off for years, and each question costs every peer a call to its libvirt.
"""

from collections.abc import Collection
from typing import Final

FIRST_S: Final = 5.0
"""From the first question to the second; each pause after it is twice as long."""

PAUSE_S_MAX: Final = 1800.0

AT_ONCE_MAX: Final = 16
"""Domains asked about in one look; the others follow in the next looks."""


class AbsentDomains:
    """Absent domains that were asked for, and the time of the next request."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._due)

    def to_ask(self, absent: Collection[str], now: float) -> list[str]:
        """Choose whom to ask for now; whoever is not absent any more is forgotten, and begins anew another time.

        Args:
            absent: UUIDs of all that are absent now.
            now: seconds of a clock that does not jump.
        """
        self._due = {uuid: self._due.get(uuid, (now, FIRST_S)) for uuid in absent}
        chosen = sorted((due, uuid) for uuid, (due, _) in self._due.items() if due <= now)[:AT_ONCE_MAX]
        for _, uuid in chosen:
            pause_s = self._due[uuid][1]
            self._due[uuid] = (now + pause_s, min(2 * pause_s, PAUSE_S_MAX))
        return [uuid for _, uuid in chosen]
