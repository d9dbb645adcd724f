"""Journal records: what a replica must find again after a crash, and how a torn tail is told from damage.

Rule: a record is written and synced before the messages that promise it are sent. So records that were not synced were
promised to nobody, and are cut off; a damaged record that was synced stops the replica. Each record carries its own
offset and how much of the journal was durable when it was written. A whole record behind a damaged one, which says that
the damaged one was durable, proves the damage, whatever else is broken between them.

    record   u32 length, big-endian | u32 CRC-32 of the payload | msgpack [kind, field, ..., place]
    place    u64 offset of the record | u64 bytes that were durable

Records of release 0.1.0 have no place. Behind a damaged one of them only its direct neighbour proves the damage.
"""

import re
import struct
import zlib
from collections.abc import Iterable
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
    """The link that began an epoch."""

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
    """A quorum accepted a batch."""

    view: Counter
    sequence: Counter
    digest: Digest


class Committed(msgspec.Struct, frozen=True, array_like=True, tag="committed"):
    """A batch is decided. Empty bytes as in `Accepted`."""

    sequence: Counter
    digest: Digest
    batch: BatchBytes = b""


Entry = Linked | Stable | ViewLeft | Entered | Accepted | WasPrepared | Committed

ALL_DURABLE: Final = 2**63 - 1
"""Said by the records of a journal that appeared whole."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)
_PLACE: Final = struct.Struct(">QQ")
_ARRAY: Final = 0x90
"""First byte of an encoded array of less than 16 fields, without their number."""
_START: Final = re.compile(rb"[\x90-\x9f][\xa4-\xa9](?:stable|linked|left|entered|accepted|prepared|committed)")
"""First bytes of a payload."""


def encode(entry: Entry, at: int = 0, durable: int = 0) -> bytes:
    """Make a record.

    Args:
        entry: to write down.
        at: offset in the journal where it will stand.
        durable: bytes of the journal that are durable already.
    """
    fields = msgspec.structs.astuple(entry)
    payload = _encoder.encode((entry.__struct_config__.tag, *fields, _PLACE.pack(at, durable)))
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def encode_all(entries: Iterable[Entry], at: int, durable: int) -> bytes:
    """Make records that follow each other; see `encode`.

    Args:
        entries: in the order in which they happened.
        at: offset in the journal where the first will stand.
        durable: bytes of the journal that are durable already.
    """
    data = bytearray()
    for entry in entries:
        data += encode(entry, at + len(data), durable)
    return bytes(data)


def decode(data: bytes) -> tuple[list[Entry], int]:
    """Read a journal.

    Returns:
        Its entries, and how many bytes they take: what follows is a torn tail.

    Raises:
        ConsensusError: what was durable is damaged: not a torn tail, the disk lost something.
    """
    entries: list[Entry] = []
    at = 0
    while (record := _record(data, at)) is not None:
        entry, _, end = record
        entries.append(entry)
        at = end
    if _is_damaged(data, at):
        raise ConsensusError(f"journal is damaged at byte {at}", hint=NEW_KEY_HINT)
    return entries, at


def _record(data: bytes, at: int) -> tuple[Entry, int | None, int] | None:
    """Read the record at `at`: entry, bytes that were durable before it if it says so, where it ends."""
    start = at + _HEADER.size
    if start > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, at)
    payload = data[start : start + length]
    if length == 0 or length > RECORD_BYTES_MAX or len(payload) < length or zlib.crc32(payload) != checksum:
        return None
    try:
        entry = _decoder.decode(payload)
    except BROKEN as error:
        raise ConsensusError(
            f"journal record at byte {at} is of another version: {error}", hint=NEW_KEY_HINT
        ) from error
    if payload[0] - _ARRAY < len(entry.__struct_fields__) + 2:  # its kind comes first, its place last
        return entry, None, start + length
    place, durable = _PLACE.unpack(payload[-_PLACE.size :])
    return (entry, durable, start + length) if place == at else None


def _is_damaged(data: bytes, at: int) -> bool:
    """Tell whether what is broken at `at` was durable once."""
    if at + _HEADER.size > len(data):
        return False
    for start in _START.finditer(data, at + _HEADER.size):
        record = _record_or_none(data, start.start() - _HEADER.size)
        if record is not None and record[1] is not None and record[1] > at:
            return True
    length, _ = _HEADER.unpack_from(data, at)
    behind = _record_or_none(data, at + _HEADER.size + length) if 0 < length <= RECORD_BYTES_MAX else None
    return behind is not None and behind[1] is None


def _record_or_none(data: bytes, at: int) -> tuple[Entry, int | None, int] | None:
    try:
        return _record(data, at)
    except ConsensusError:
        return None
