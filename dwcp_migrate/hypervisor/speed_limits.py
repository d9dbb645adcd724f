"""Speed limits that the agent sets on domains' migrations in QEMU itself, and the users' limits to restore.

Libvirt keeps one limit a domain. A migration begins with it or with its own `--bandwidth`, and `virsh
migrate-setspeed` may change it at any time, so each change reads the present limit first. A limit that the agent did
not set is the user's; the agent's never exceeds it, and only the agent's own is ever replaced by the user's again.
"""

import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from dwcp_migrate.durable import write_whole
from dwcp_migrate.logs import get_logger
from dwcp_migrate.units import MIB

LIMITS_MAX: Final = 1024
"""Domains whose limits are remembered; beyond it none is set."""

log = get_logger(component="libvirt")


class _Limit(msgspec.Struct, frozen=True):
    """In MiB/s, as libvirt counts: the user's limit, and the agent's in its place."""

    users: int
    ours: int


class SpeedLimits:
    """The limits that are in force, on disk as well. Its methods block: they are called on threads.

    Args:
        path: where they are kept; None keeps them in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._limits: dict[str, _Limit] = _read(path) if path else {}

    def left_behind(self) -> list[str]:
        """UUIDs of the domains that have a limit of ours."""
        return list(self._limits)

    def change(self, domain: Any, bytes_per_s: float) -> None:
        """Limit the rate of a domain's migration; a new limit is on disk before it is in force.

        Args:
            domain: libvirt's object (libvirt.virDomain).
            bytes_per_s: new limit, rounded down to MiB/s, of which the user's own counts where it is lower; 0 restores
                the user's own.

        Raises:
            libvirt.libvirtError: libvirt refuses.
        """
        uuid = domain.UUIDString()
        known = self._limits.get(uuid)
        if known is None and (not bytes_per_s or len(self._limits) >= LIMITS_MAX):
            return
        stands = domain.migrateGetMaxSpeed(0)
        is_ours = known is not None and stands == known.ours
        users = known.users if known is not None and is_ours else stands
        if not bytes_per_s:
            if is_ours:
                domain.migrateSetMaxSpeed(users, 0)
            self._keep(uuid, None)
            return
        wanted = max(1, int(bytes_per_s / MIB))  # rounded down: a rate is a maximum
        ours = min(users, wanted) if users else wanted
        if ours == users:  # the user's own is no higher than what we would set
            if is_ours:
                domain.migrateSetMaxSpeed(users, 0)
            self._keep(uuid, None)
            return
        self._keep(uuid, _Limit(users, ours))
        domain.migrateSetMaxSpeed(ours, 0)

    def forget(self, uuid: str) -> None:
        """Forget the limit of a domain that is gone."""
        self._keep(uuid, None)

    def _keep(self, uuid: str, limit: _Limit | None) -> None:
        with self._lock:
            if self._limits.get(uuid) == limit:
                return
            if limit is None:
                del self._limits[uuid]
            else:
                self._limits[uuid] = limit
            if self._path is None:
                return
            try:
                write_whole(self._path, msgspec.json.encode(self._limits), mode=0o640)
            except OSError as error:
                log.warning("speed limits are not kept: a crash would leave them behind", error=str(error))


def _read(path: Path) -> dict[str, _Limit]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, _Limit])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("speed limits of before cannot be read", path=str(path), error=str(error))
        return {}
