"""Snapshots: the state at one entry of the log, kept so that the log before it may go, and sent to replicas far behind.

The tick never waits for the disk and nothing forks: the state is encoded at once, which takes milliseconds at the
largest size that the limits allow, and a thread writes it; the log is cut only when the file is whole and synced. This
object stands where the Raft library expects its serializer, so its methods have the library's names.

    file     "DWCPSNAP1" | crc32 u32 | msgpack of Image, written under another name, synced, renamed
"""

import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import JournalError
from dwcp_migrate.state.fleet.model import Name
from dwcp_migrate.state.raft.disk import Background, Disk
from dwcp_migrate.state.raft.messages import SNAPSHOT_PART_BYTES, LogEntry
from dwcp_migrate.units import MIB

SNAPSHOT_BYTES_MAX: Final = 64 * MIB
"""All tables of the model full take about half of it."""

MAGIC: Final = b"DWCPSNAP1"
_CHECKSUM: Final = struct.Struct("<I")

# States of writing, numbered as in the Raft library (pysyncobj.config.SERIALIZER_STATE).
IDLE: Final = 0
WRITING: Final = 1
WRITTEN: Final = 2
FAILED: Final = 3

Part = tuple[bytes, bool, bool]
"""Bytes, whether they are the first, whether they are the last (and then empty)."""


class Image(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot.

    Attributes:
        before: the entry before `last`; the log starts with the two of them.
        last: the last entry that the state holds.
        voters: members with a vote.
        state: as `model.encode` writes it.
    """

    before: LogEntry
    last: LogEntry
    voters: Annotated[tuple[Name, ...], Meta(max_length=64)]
    state: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Image)


def decode(data: bytes) -> Image:
    """Read a snapshot's bytes.

    Raises:
        JournalError: damaged, or none of ours.
    """
    start = len(MAGIC) + _CHECKSUM.size
    try:
        if not data.startswith(MAGIC) or _CHECKSUM.unpack_from(data, len(MAGIC))[0] != zlib.crc32(data[start:]):
            raise JournalError("the snapshot is damaged", hint="delete the directory and add the member again")
        image: Image = _decoder.decode(memoryview(data)[start:])
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
        raise JournalError(f"the snapshot is damaged: {error}") from error
    return image


def encode(image: Image) -> bytes:
    """Write a snapshot's bytes."""
    body = _encoder.encode(image)
    return MAGIC + _CHECKSUM.pack(zlib.crc32(body)) + body


class Snapshots:
    """The newest snapshot, in memory and in its file.

    Args:
        path: of the file.
        take: makes an image of the state as it is now.
        has_room: says whether a follower's link takes another part now.
        disk: what the file lies on.
    """

    def __init__(self, path: Path, take: Callable[[], Image], has_room: Callable[[Any], bool], disk: Disk) -> None:
        self._path = path
        self._take = take
        self._has_room = has_room
        self._disk = disk
        self._current = b""
        self._pending = b""
        self._index = 0
        self._writer: Background | None = None
        self._failed = False
        self._lock = threading.Lock()
        self._kept = self._pending_kept = 0
        self._sent: dict[Any, int] = {}
        self._received = bytearray()
        self._receiving = False

    def load(self) -> Image | None:
        """Read the file at the start; None when there is none.

        Raises:
            JournalError: damaged or unreadable.
        """
        try:
            self._current = self._disk.read_whole(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalError(f"cannot read {self._path}: {error.strerror}") from error
        return decode(self._current)

    # -- as the Raft library calls it

    def serialize(self, _data: object, index: int) -> None:
        """Begin to write the state; does nothing while one is being written.

        Args:
            _data: the library's own state, not used.
            index: of the last entry but one that the state holds.
        """
        if self._writer is not None:
            return
        self._index = index
        self._pending = encode(self._take())
        self._failed = False
        data, kept = self._pending, self._kept
        self._pending_kept = kept
        self._writer = self._disk.run_beside(lambda: self._write(data, kept))

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802 - the library's name
        """Report the progress of writing and its index; the end is reported once."""
        if self._writer is None:
            return IDLE, None
        if self._writer.is_alive():
            return WRITING, self._index
        self._writer = None
        if self._failed or self._pending_kept != self._kept:
            return FAILED, self._index
        self._current, self._pending = self._pending, b""
        self._sent.clear()
        return WRITTEN, self._index

    def getTransmissionData(self, node: Any) -> Part | None:  # noqa: N802 - the library's name
        """Give the next part for a follower; None while there is nothing to give."""
        if not self._current or self._writer is not None or not self._has_room(node):
            return None
        start = self._sent.get(node, 0)
        data = self._current[start : start + SNAPSHOT_PART_BYTES]
        self._sent[node] = start + len(data)
        if not data:
            del self._sent[node]
        return data, start == 0, not data

    def setTransmissionData(self, part: Part | None) -> bool:  # noqa: N802 - the library's name
        """Take a part from the leader; True when the snapshot is whole: `received` has it then."""
        if part is None:
            return False
        data, first, last = part
        if first:
            self._received = bytearray()
            self._receiving = True
        if not self._receiving or len(self._received) + len(data) > SNAPSHOT_BYTES_MAX:
            self._receiving = False
            return False
        self._received += data
        if last:
            self._receiving = False
        return last

    def received(self) -> Image:
        """Return the snapshot that came from the leader, whole, and forget it; `keep` makes it the newest.

        Raises:
            JournalError: damaged.
        """
        data, self._received = bytes(self._received), bytearray()
        return decode(data)

    def keep(self, image: Image) -> None:
        """Make an image the newest one: the file first. One that is being written beside is done, or never begun.

        Raises:
            OSError: the disk did not take it.
        """
        data = encode(image)
        with self._lock:
            self._kept += 1
            self._disk.write_whole(self._path, data)
        self._current = data

    def cancelTransmisstion(self, node: Any) -> None:  # noqa: N802 - the library's name
        """Forget how far a follower was that went away in the middle."""
        self._sent.pop(node, None)

    # -- the file

    def _write(self, data: bytes, kept: int) -> None:
        """Write the file, unless a newer one came from the leader since this one was taken."""
        with self._lock:
            self._failed = kept != self._kept
            if self._failed:
                return
            try:
                self._disk.write_whole(self._path, data)
            except OSError:
                self._failed = True

    def close(self) -> None:
        """Wait for a write under way."""
        if self._writer is not None:
            self._writer.join()
