"""Limits of links that an operator commanded: kept in a file, so that they outlive the agent, until they end.

The rule: a command never raises a configured limit; of all limits the lowest holds. A file that cannot be read limits
nothing, and is reported; one that cannot be written fails the command.
"""

from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.logs import get_logger

LIMITS_FILE: Final = "limits.json"
LIMITS_MAX: Final = 4096
"""Peers with a limit; a fleet is smaller."""

log = get_logger(component="peers")


class CommandedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as it was commanded.

    Attributes:
        bytes_per_s: at most that, on the wire.
        until: seconds since the epoch; 0 is until it is taken off.
    """

    bytes_per_s: float
    until: float = 0.0


def lowest_limit(*limits: float) -> float:
    """The lowest of several limits; 0 is none, and the answer where all are."""
    return min((limit for limit in limits if limit > 0), default=0.0)


class PeerLimits:
    """The limits that are commanded now.

    Args:
        directory: where they are kept; None keeps them in memory alone.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._path = directory / LIMITS_FILE if directory else None
        self._limits = self._read()

    def _read(self) -> dict[str, CommandedLimit]:
        if self._path is None:
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, CommandedLimit])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("commanded limits are not read, none is in force", path=str(self._path), error=str(error))  # noqa: TRY400
            return {}

    def of_peer(self, peer: str, now: float) -> CommandedLimit | None:
        """The limit of a peer.

        Args:
            peer: its name as configured.
            now: seconds since the epoch.
        """
        found = self._limits.get(peer.lower())
        return found if found is not None and (not found.until or now < found.until) else None

    def put(self, peer: str, limit: CommandedLimit | None, now: float) -> None:
        """Set a peer's limit, or take it off; it is on the disk when this returns.

        Args:
            peer: its name as configured.
            limit: None takes it off.
            now: seconds since the epoch.

        Raises:
            DwcpError: it cannot be kept; the limits are as they were.
        """
        limits = {name: known for name, known in self._limits.items() if not known.until or now < known.until}
        limits.pop(peer.lower(), None)
        if limit is not None:
            if len(limits) >= LIMITS_MAX:
                raise DwcpError(f"there are limits for {LIMITS_MAX} peers", hint="dwcp-migrate limit PEER off")
            limits[peer.lower()] = limit
        if self._path is not None:
            try:
                write_whole(self._path, msgspec.json.encode(limits))
            except OSError as error:
                raise DwcpError(
                    f"{self._path}: {error.strerror}", hint="check owner and space of the state directory"
                ) from error
        self._limits = limits
