"""The journal on a disk.

Rule: `append` and `replace` return when what they wrote is durable, or raise. A new journal appears whole: written
beside the old one, synced, renamed, directory synced. One process at a time: the file is locked.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.messages import JOURNAL_BYTES
from dwcp_migrate.durable import sync_directory, write_whole
from dwcp_migrate.errors import ConsensusError


class JournalFile:
    """An open journal.

    Args:
        path: of the file; made if it is not there.
        sync: make writes durable; off only where losing power may cost the replica its identity.

    Attributes:
        name: random; made with the file, and another one when the file was lost.

    Raises:
        ConsensusError: another process has it, it is damaged, or the disk refuses.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._path = path
        self._sync = sync
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take_lock()
            self.name = self._named()
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._file).st_size
            self._durable = 0
        except OSError as error:
            raise ConsensusError(f"journal {path}: {error.strerror}") from error

    def beside(self, suffix: str) -> Path:
        """Name a file that belongs to this journal."""
        return self._path.with_suffix(suffix)

    def _named(self) -> bytes:
        path = self.beside(".name")
        if self._path.exists() and path.exists():
            return path.read_bytes()
        name = secrets.token_bytes(JOURNAL_BYTES)
        write_whole(path, name, sync=self._sync)
        return name

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConsensusError(f"journal {self._path} is in use", hint="one replica for each journal") from None

    def read(self) -> list[records.Entry]:
        """Read everything, cut a torn tail off, and make the rest durable: a killed process may have left it unsynced.

        Raises:
            ConsensusError: as `records.decode`; or as `append`.
        """
        entries, end = records.decode(self._path.read_bytes())
        os.ftruncate(self._file, end)
        self._size = end
        self.sync()
        return entries

    def append(self, entries: Iterable[records.Entry], *, sync: bool) -> None:
        """Add records.

        Args:
            entries: in the order in which they happened.
            sync: make them durable before returning; without it, the next `sync` does.

        Raises:
            OSError: the disk is full or refuses: what was written in part is cut off again; it may be tried again.
            ConsensusError: a sync failed: what the disk holds is not known any more, the replica must stop.
        """
        data = records.encode_all(entries, self._size, self._durable)
        try:
            _write_all(self._file, data)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        if sync:
            self.sync()

    def sync(self) -> None:
        """Make what was appended durable, if this journal is to be; another thread may append meanwhile.

        Raises:
            ConsensusError: as `append`.
        """
        size = self._size
        try:
            if self._sync:
                os.fdatasync(self._file)
        except OSError as error:
            raise ConsensusError(
                f"journal {self._path} cannot be synced: {error.strerror}", hint="check the disk"
            ) from error
        self._durable = size

    def replace(self, entries: Iterable[records.Entry]) -> None:
        """Put a new journal in place of the old one.

        Raises:
            OSError: the disk refuses; the old journal is as it was.
        """
        data = records.encode_all(entries, 0, records.ALL_DURABLE)
        fresh = self._path.with_suffix(".new")
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, data)
            if self._sync:
                os.fdatasync(file)
            fresh.rename(self._path)
        except OSError:
            os.close(file)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self._size, self._durable = file, len(data), len(data)
        if self._sync:
            sync_directory(self._path.parent)

    def close(self) -> None:
        """Close the file and let another process have it."""
        os.close(self._file)
        os.close(self._lock)


class MetJournals:
    """Journals of other members as they were first met, by the member's key; kept on the disk.

    Args:
        path: of the file.

    Raises:
        ConsensusError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[bytes, bytes] = {}
        try:
            self._known = msgspec.msgpack.decode(path.read_bytes(), type=dict[bytes, bytes])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            raise ConsensusError(
                f"{path} cannot be used: {error}", hint="remove it if no member lost its disk"
            ) from error

    def is_same(self, key: bytes, name: bytes) -> bool:
        """Tell whether a member still has the journal that it had at the first meeting; the first one is noted.

        Args:
            key: the member's public key.
            name: of its journal, from its hello.

        Raises:
            ConsensusError: the disk refuses.
        """
        known = self._known.setdefault(key, name)
        if known is name:
            try:
                write_whole(self._path, msgspec.msgpack.encode(self._known))
            except OSError as error:
                del self._known[key]
                raise ConsensusError(f"{self._path} cannot be written: {error.strerror}") from error
        return known == name


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
