"""Record of the warm-ups from this host: those that run, and the last that ended, for as long as the agent runs."""

from typing import Final

from msgspec.structs import replace

from dwcp_migrate.api.warm import WarmUp
from dwcp_migrate.errors import NotFoundError

ENDED_MAX: Final = 16
"""Warm-ups that ended and are still shown."""


class WarmBook:
    """The warm-ups, newest first."""

    def __init__(self) -> None:
        self._known: dict[str, WarmUp] = {}

    def put(self, one: WarmUp) -> None:
        """Take a new one; of those that ended, the oldest goes."""
        self._known[one.id] = one
        over = [identity for identity, known in self._known.items() if known.is_over]
        for identity in over[: max(0, len(over) - ENDED_MAX)]:
            del self._known[identity]

    def change(self, identity: str, **changes: object) -> None:
        """Change fields of one that has not ended.

        Args:
            identity: of it.
            **changes: fields of `WarmUp`.
        """
        one = self._known.get(identity)
        if one is not None and not one.is_over:
            self._known[identity] = replace(one, **changes)

    def find(self, identity: str) -> WarmUp:
        """Find one. Raises NotFoundError."""
        try:
            return self._known[identity]
        except KeyError:
            raise NotFoundError(f"no warm-up {identity!r}", hint="`dwcp-migrate status` lists those that run") from None

    def all(self) -> list[WarmUp]:
        """All of them, newest first."""
        return list(reversed(self._known.values()))

    def running(self) -> list[WarmUp]:
        """Those that have not ended."""
        return [one for one in self.all() if not one.is_over]
