"""Journal records: what a replica must find again after a crash, and how a torn tail is read.

Rule: a record is written and synced before the messages that promise it are sent. So a tail that is cut short or
garbled holds nothing that anybody was told, and is dropped; a garbled record with good ones behind it was synced and
is damage.

    record   u32 length, big-endian | u32 CRC-32 of the payload | msgpack [kind, field, ...]
"""

import struct
import zlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.model.messages import (
    BROKEN,
    BatchBytes,
    Counter,
    Digest,
    EpochLink,
    NewView,
    StableProof,
)
from dwcp_migrate.consensus.pbft.model.snapshot import STATE_BYTES_MAX
from dwcp_migrate.errors import ConsensusError
from dwcp_migrate.units import MIB

RECORD_BYTES_MAX: Final = STATE_BYTES_MAX + MIB
NEW_KEY_HINT: Final = (
    "give this host a new key and replace it in the membership: what it promised is not known any more"
)
_HEADER: Final = struct.Struct(">II")


class Stable(msgspec.Struct, frozen=True, array_like=True, tag="stable"):
    """The last stable checkpoint with its state: the first record of a compacted journal."""

    proof: StableProof
    state: Annotated[bytes, Meta(max_length=STATE_BYTES_MAX)]


class Linked(msgspec.Struct, frozen=True, array_like=True, tag="linked"):
    """How an epoch began."""

    link: EpochLink


class ViewLeft(msgspec.Struct, frozen=True, array_like=True, tag="left"):
    """This replica left all views below `view`, and sent its view change for it."""

    view: Counter


class Entered(msgspec.Struct, frozen=True, array_like=True, tag="entered"):
    """This replica entered a view; its proof, for those who missed it."""

    proof: NewView


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="accepted"):
    """A batch was accepted in a view. Empty bytes: it is in an earlier record, or only its digest is known."""

    view: Counter
    sequence: Counter
    digest: Digest
    batch: BatchBytes = b""


class WasPrepared(msgspec.Struct, frozen=True, array_like=True, tag="prepared"):
    """A quorum accepted it."""

    view: Counter
    sequence: Counter
    digest: Digest


class Committed(msgspec.Struct, frozen=True, array_like=True, tag="committed"):
    """It is decided. Empty bytes as in `Accepted`."""

    sequence: Counter
    digest: Digest
    batch: BatchBytes = b""


Entry = Linked | Stable | ViewLeft | Entered | Accepted | WasPrepared | Committed

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """Make a record."""
    payload = _encoder.encode(entry)
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def decode(data: bytes) -> tuple[list[Entry], int]:
    """Read a journal.

    Returns:
        Its entries, and how many bytes they take: what follows is a torn tail.

    Raises:
        ConsensusError: a record is damaged though a later one is whole: not a torn tail, the disk lost something.
    """
    entries: list[Entry] = []
    at = 0
    while (record := _record(data, at)) is not None:
        payload, end = record
        try:
            entries.append(_decoder.decode(payload))
        except BROKEN as error:
            raise ConsensusError(
                f"journal record at byte {at} is of another version: {error}", hint=NEW_KEY_HINT
            ) from error
        at = end
    if _has_record_after(data, at):
        raise ConsensusError(f"journal is damaged at byte {at}", hint=NEW_KEY_HINT)
    return entries, at


def _record(data: bytes, at: int) -> tuple[bytes, int] | None:
    start = at + _HEADER.size
    if start > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, at)
    payload = data[start : start + length]
    if length == 0 or length > RECORD_BYTES_MAX or len(payload) < length or zlib.crc32(payload) != checksum:
        return None
    return payload, start + length


def _has_record_after(data: bytes, at: int) -> bool:
    """Tell whether the damaged record at `at` has a plausible length and a whole record behind it."""
    if at + _HEADER.size > len(data):
        return False
    length, _ = _HEADER.unpack_from(data, at)
    return 0 < length <= RECORD_BYTES_MAX and _record(data, at + _HEADER.size + length) is not None
