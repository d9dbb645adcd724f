"""Disablement of this agent by its operator, kept in a file so that it outlives restarts of agent and host.

The rule: a disabled agent takes no new migrations, as one that drains; those that run go on. Only `enable` ends it.
"""

from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.durable import sync_directory, write_whole
from dwcp_migrate.errors import DwcpError

DISABLED_FILE: Final = "disabled.json"
REASON_CHARACTERS_MAX: Final = 200


class DisabledSince(msgspec.Struct, frozen=True, kw_only=True):
    """The moment at which it was disabled, seconds since the epoch, and the operator's reason."""

    at: float
    reason: str = ""


class Disablement:
    """Whether this agent is disabled.

    Args:
        directory: where that is kept; None keeps it in memory alone.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._path = directory / DISABLED_FILE if directory else None
        self.since = self._read()

    def _read(self) -> DisabledSince | None:
        if self._path is None:
            return None
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=DisabledSince)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return DisabledSince(at=0.0, reason=f"{self._path} cannot be read: {error}")  # somebody wanted it

    @property
    def words(self) -> str:
        """The state in words; empty where it is not disabled."""
        if self.since is None:
            return ""
        return f"disabled: {self.since.reason}" if self.since.reason else "disabled"

    def begin(self, reason: str, now: float) -> None:
        """Disable; it is on the disk when this returns.

        Args:
            reason: in the operator's words; may be empty.
            now: seconds since the epoch.

        Raises:
            DwcpError: it cannot be kept, and is not in force.
        """
        since = DisabledSince(at=now, reason=reason[:REASON_CHARACTERS_MAX])
        if self._path is not None:
            try:
                write_whole(self._path, msgspec.json.encode(since))
            except OSError as error:
                raise self._failed(error) from error
        self.since = since

    def end(self) -> None:
        """Enable; it is on the disk when this returns.

        Raises:
            DwcpError: the file cannot be removed.
        """
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
                sync_directory(self._path.parent)
            except OSError as error:
                raise self._failed(error) from error
        self.since = None

    def _failed(self, error: OSError) -> DwcpError:
        return DwcpError(f"{self._path}: {error.strerror}", hint="check owner and space of the state directory")
