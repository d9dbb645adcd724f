"""Records of running migrations for the next agent: one file each in the runtime directory.

The rule: a failed write never stops a migration. The directory is in memory (`/run`), so nothing here waits for a disk;
a file that cannot be written only costs the next agent the record's details. Data processes outlive the agent, not the
host, and so do these files.

    sessions/ID.json     the record and what else the next agent needs; written at each event
    sessions/ID.lock     locked by the data process for as long as it lives
    sessions/ID.ended    how a session ended while there was no agent, written by the data process
"""

import fcntl
from pathlib import Path

import msgspec

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.durable import write_whole
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import DomainName
from dwcp_migrate.protocol.worker import FAREWELL_SUFFIX, LOCK_SUFFIX, SESSIONS_DIRECTORY, Farewell, decode_farewell

log = get_logger(component="sessions")


class SessionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's facts of a migration beside its record.

    Attributes:
        candidates: domains that it may be of.
        peer_outlives: the peer's data process outlives its agent, too.
        link_address: of the peer, at which its agent answers.
        token: of the fleet's ticket; 0 is none.
        ticket_uuid: the domain of that ticket, where this is its source.
        certified_uuid: the domain whose certificate it runs on; empty is none.
        memory_bytes: what it was granted of the host's budget.
    """

    candidates: tuple[DomainName, ...] = ()
    peer_outlives: bool = False
    link_address: str = ""
    token: int = 0
    ticket_uuid: str = ""
    certified_uuid: str = ""
    memory_bytes: int = 0


class KeptMigration(msgspec.Struct, frozen=True, kw_only=True):
    """A running migration as it is kept.

    Attributes:
        is_over: its data process has sent its last message; only libvirt's report is missing.
    """

    record: Migration
    facts: SessionFacts = SessionFacts()
    is_over: bool = False

    @property
    def heard(self) -> int:
        """Serial of the last event of the data process that is in the record."""
        return max((event.serial for event in self.record.events), default=0)


class RunningStore:
    """Files of the running migrations.

    Args:
        runtime_directory: they lie in a directory of it, which is made when the first is written.
    """

    def __init__(self, runtime_directory: Path) -> None:
        self._directory = runtime_directory / SESSIONS_DIRECTORY

    def save(self, kept: KeptMigration) -> None:
        """Write one, in place of what was there."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path(kept.record.id, ".json"), msgspec.json.encode(kept), sync=False)
        except OSError as error:
            log.warning("migration not kept for the next agent", migration=kept.record.id, error=str(error))

    def forget(self, identity: str) -> None:
        """Remove all of one that ended."""
        for suffix in (".json", LOCK_SUFFIX, FAREWELL_SUFFIX):
            try:
                self._path(identity, suffix).unlink(missing_ok=True)
            except OSError as error:
                log.warning("file stays behind", migration=identity, error=str(error))

    def load(self) -> list[KeptMigration]:
        """Those that a predecessor left, oldest first; a file that cannot be read is left out and removed."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=KeptMigration))
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("kept migration cannot be read", path=str(path), error=str(error))
                self.forget(path.stem)
        for leftover in self._directory.glob(".*"):  # of a write that a kill cut short
            leftover.unlink(missing_ok=True)
        return sorted(found, key=lambda kept: kept.record.started_at)

    def is_carried(self, identity: str) -> bool:
        """Whether the migration's data process lives."""
        try:
            with self._path(identity, LOCK_SUFFIX).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def farewell(self, identity: str) -> Farewell | None:
        """The farewell that the data process left when its session ended without an agent."""
        try:
            return decode_farewell(self._path(identity, FAREWELL_SUFFIX).read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _path(self, identity: str, suffix: str) -> Path:
        return self._directory / f"{identity}{suffix}"
