"""The log of a replica on disk: entries, term and vote, read back after any crash.

An entry that was synced is never lost and never changed but by `truncate`; entries that were not may be missing, at the
end only. Writing comes before remembering: an entry that the disk did not take is not in the log.

    log     "DWCPLOG1" | records: length u32 | crc32 u32 | index u64 | term u64 | kind u8 | payload
    vote    two slots of 512 bytes, written in turn: crc32 u32 | number u64 | term u64 | commit u64 | length u16 | name

Behind the last record stand zeros, written beforehand: a record that overwrites them changes neither the file's size
nor its extents, so that syncing it costs one write and one flush instead of a transaction of the file system as well.
At the start, everything behind the last whole record is cut off before anything is written there: the rest of a record
that was never confirmed must not follow a new one.

A record whose checksum is wrong ends the log: it was being written when the host died, and was confirmed to nobody. If
the vote file says that more was committed than the log now holds, the disk lost entries that it had confirmed: the
replica must not vote with that log, see `LogFile.check`.
"""

import errno
import struct
import zlib
from pathlib import Path
from typing import Final, overload

from dwcp_migrate.errors import JournalError
from dwcp_migrate.state.fleet.commands import BATCH_BYTES_MAX
from dwcp_migrate.state.raft.disk import Disk
from dwcp_migrate.units import KIB, MIB

MAGIC: Final = b"DWCPLOG1"
SLOT_BYTES: Final = 512
"""One sector: disks write it whole."""
NAME_BYTES_MAX: Final = 256
GROW_BYTES: Final = 1 * MIB
"""Zeros written at a time behind the log: one sync in about a thousand small entries carries them."""
GROW_FOR_BYTES_MAX: Final = 16 * KIB
"""A larger entry gets no zeros behind it: they would be as much to write and to sync as the entry itself."""

DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_RECORD: Final = struct.Struct("<IIQQB")
_SLOT: Final = struct.Struct("<IQQQH")
_HEAD_BYTES: Final = 8
_BODY_MIN: Final = _RECORD.size - _HEAD_BYTES

Record = tuple[bytes, int, int]
"""Command (kind byte and payload), index, term: as the Raft library holds it."""


class LogFile:
    """Entries, term and vote.

    Args:
        directory: made if it is not there; holds `log` and `vote`.
        disk: what it lies on.

    Raises:
        JournalError: it cannot be read.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._disk = disk
        self._path = directory / "log"
        try:
            disk.make_directory(directory)
            self._vote = disk.open(directory / "vote")
            self._file = disk.open(self._path)
            self._number, self.term, self.voted_for, committed = self._read_vote()
            self._records: list[Record] = []
            self._offsets: list[int] = []
            self._end = self._grow_at = 0
            self._load()
        except OSError as error:
            raise JournalError(f"cannot use {directory}: {error.strerror}", hint="check the directory") from error
        self._dirty = self._vote_dirty = False
        self.commit = self._stored_commit = committed

    # -- entries

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, item: int) -> Record: ...
    @overload
    def __getitem__(self, item: slice) -> list[Record]: ...
    def __getitem__(self, item: int | slice) -> Record | list[Record]:
        return self._records[item]

    @property
    def last(self) -> tuple[int, int]:
        """Index and term of the last entry, zeros when there is none."""
        return (self._records[-1][1], self._records[-1][2]) if self._records else (0, 0)

    @property
    def size_bytes(self) -> int:
        """Size of the log on disk, without the zeros behind it."""
        return self._end

    def append(self, record: Record) -> None:
        """Write an entry behind the last; durable after `sync`.

        Raises:
            OSError: the disk did not take it; the log is as before.
        """
        data = _encode(record)
        end = self._end + len(data)
        try:
            self._disk.write(self._file, data, self._end)
            if end > self._grow_at and len(data) <= GROW_FOR_BYTES_MAX:
                self._grow(end)
        except OSError:
            self._cut(self._end)
            raise
        self._offsets.append(self._end)
        self._records.append(record)
        self._end = end
        self._dirty = True

    def _grow(self, end: int) -> None:
        """Write zeros behind the end; a disk without room for them takes records on, each sync a little dearer."""
        self._grow_at = end + GROW_BYTES
        try:
            self._disk.write(self._file, bytes(GROW_BYTES), end)
        except OSError as error:
            self._disk.cut(self._file, end)
            if error.errno not in DISK_FULL:
                raise

    def _cut(self, end: int) -> None:
        self._disk.cut(self._file, end)
        self._grow_at = end

    def truncate(self, count: int) -> None:
        """Keep the first `count` entries; durable on return."""
        if count >= len(self._records):
            return
        self._end = self._offsets[count]
        self._cut(self._end)
        del self._records[count:], self._offsets[count:]
        self._dirty = True
        self.sync()

    def drop_first(self, count: int) -> None:
        """Forget the first `count` entries, which a snapshot holds; the rest moves to a new file, whole or not."""
        self._rewrite(self._records[count:])

    def replace(self, records: list[Record]) -> None:
        """Hold these entries and no others, durably."""
        self._rewrite(records)

    def check(self, snapshot_index: int) -> None:
        """Demand that what was committed is there, in the log or in the snapshot.

        Raises:
            JournalError: the disk lost what it had confirmed; a replica without it could help to lose it everywhere.
        """
        if self.commit > max(self.last[0], snapshot_index):
            raise JournalError(
                f"{self._path} ends with entry {self.last[0]}, but {self.commit} was committed",
                hint="remove this member from the fleet, delete the directory, add the member again",
            )

    def sync(self) -> None:
        """Make everything written durable, entries, term and vote; costs nothing when nothing was.

        Raises:
            JournalError: the disk failed; what it holds is unknown from now on, and the journal must not be used again.
        """
        if self._dirty:
            self._disk.sync(self._file)
            self._dirty = False
        if self._vote_dirty:
            self._disk.sync(self._vote)
            self._vote_dirty = False

    def _rewrite(self, records: list[Record]) -> None:
        temporary = self._path.with_suffix(".new")
        file = self._disk.open(temporary, fresh=True)
        try:
            encoded = [_encode(record) for record in records]
            self._disk.write(file, MAGIC + b"".join(encoded), 0)
            self._disk.sync(file)
            self._disk.rename(temporary, self._path)
            self._disk.sync_names(self._path.parent)
        except BaseException:
            self._disk.close(file)
            self._disk.remove(temporary)
            raise
        self._disk.close(self._file)
        self._file = file
        self._records = records
        self._offsets = []
        self._end = len(MAGIC)
        for data in encoded:
            self._offsets.append(self._end)
            self._end += len(data)
        self._grow_at = self._end
        self._dirty = False

    def _load(self) -> None:
        size = self._disk.size(self._file)
        if size < len(MAGIC):
            self._disk.cut(self._file, 0)
            self._disk.write(self._file, MAGIC, 0)
            self._disk.sync(self._file)
            self._disk.sync_names(self._path.parent)
            self._end = self._grow_at = len(MAGIC)
            return
        if self._disk.read(self._file, len(MAGIC), 0) != MAGIC:
            raise JournalError(f"{self._path} is no log of this software", hint="move it away")
        self._end = len(MAGIC)
        while (found := self._read(self._end, size)) is not None:
            record, length = found
            if self._records and record[1] != self._records[-1][1] + 1:
                break
            self._records.append(record)
            self._offsets.append(self._end)
            self._end += length
        self._cut(self._end)
        if self._end < size:
            self._disk.sync(self._file)

    def _read(self, offset: int, size: int) -> tuple[Record, int] | None:
        head = self._disk.read(self._file, _HEAD_BYTES, offset)
        if len(head) < _HEAD_BYTES:
            return None
        length, checksum = struct.unpack("<II", head)
        if not _BODY_MIN <= length <= _BODY_MIN + BATCH_BYTES_MAX or offset + _HEAD_BYTES + length > size:
            return None
        body = self._disk.read(self._file, length, offset + _HEAD_BYTES)
        if len(body) < length or zlib.crc32(body) != checksum:
            return None
        index, term = struct.unpack_from("<QQ", body)
        return (body[16:], index, term), _HEAD_BYTES + length

    # -- term, vote, commit index

    def set_term(self, term: int, voted_for: str | None) -> None:
        """Write term and vote; `sync` before the next message that tells of them.

        Args:
            term: the current one.
            voted_for: name of the host that has this one's vote in it; None for nobody.
        """
        self.term, self.voted_for = term, voted_for
        self._write_vote()
        self._vote_dirty = True

    def set_commit(self, index: int) -> None:
        """Note a newer commit index; the entries up to it are made durable before anybody is told."""
        if index > self.commit:
            self.sync()
        self.commit = index

    def store_commit(self) -> None:
        """Write the commit index if it has changed; called once a second, it only has to be true, not the newest."""
        if self.commit != self._stored_commit:
            self._write_vote()

    def _write_vote(self) -> None:
        self._number += 1
        name = (self.voted_for or "").encode()
        if len(name) > NAME_BYTES_MAX:
            raise JournalError(f"a name of {len(name)} bytes, at most {NAME_BYTES_MAX}")
        body = struct.pack("<QQQH", self._number, self.term, self.commit, len(name)) + name
        slot = struct.pack("<I", zlib.crc32(body)) + body
        self._disk.write(self._vote, slot.ljust(SLOT_BYTES, b"\0"), self._number % 2 * SLOT_BYTES)
        self._stored_commit = self.commit

    def _read_vote(self) -> tuple[int, int, str | None, int]:
        found: list[tuple[int, int, str | None, int]] = []
        for offset in (0, SLOT_BYTES):
            data = self._disk.read(self._vote, SLOT_BYTES, offset)
            if len(data) < SLOT_BYTES:
                continue
            checksum, number, term, commit, length = _SLOT.unpack_from(data)
            body = data[4 : _SLOT.size + length]
            if length <= NAME_BYTES_MAX and zlib.crc32(body) == checksum:
                found.append((number, term, body[_SLOT.size - 4 :].decode() or None, commit))
        return max(found, default=(0, 0, None, 0), key=lambda slot: slot[0])

    def close(self) -> None:
        """Close the files; nothing is synced by it."""
        self._disk.close(self._file)
        self._disk.close(self._vote)


def _encode(record: Record) -> bytes:
    command, index, term = record
    body = struct.pack("<QQ", index, term) + command
    return struct.pack("<II", len(body), zlib.crc32(body)) + body
