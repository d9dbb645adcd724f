"""A backup of the fleet's record: one file, with which a new cluster begins when a majority of the old one is lost.

    file    "DWCPBACKUP1" | crc32 u32 | msgpack of FleetBackup

Nobody knows any more what the lost majority confirmed after the backup. So the new cluster numbers its commands from
far behind: it gives no token that the old one can have given, and each new one is larger.
"""

import struct
import zlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import JournalError
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.invariants import violations
from dwcp_migrate.state.fleet.model import Count, FleetState, Name, Seconds
from dwcp_migrate.units import MIB

BACKUP_BYTES_MAX: Final = 64 * MIB
"""As a snapshot's."""

LEAP: Final = 2**40
"""Numbers that a restored record leaves out: 1,024 hosts take 300 years for so many commands; 8,000 restores fit."""

MAGIC: Final = b"DWCPBACKUP1"
_CHECKSUM: Final = struct.Struct("<I")


class FleetBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup.

    Attributes:
        host: that it was taken on.
        at: when, seconds since the epoch by that host's clock.
        entry: of the log, the last one in it.
        term: of the log.
        is_confirmed: a majority confirmed that nothing newer was confirmed to anybody; else it is what `host` knew.
        state: as `model.encode` writes it.
    """

    host: Name
    at: Seconds
    entry: Count
    term: Count
    is_confirmed: bool
    state: Annotated[bytes, Meta(max_length=BACKUP_BYTES_MAX)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(FleetBackup)


def encode_backup(backup: FleetBackup) -> bytes:
    """Write a backup's file."""
    body = _encoder.encode(backup)
    return MAGIC + _CHECKSUM.pack(zlib.crc32(body)) + body


def decode_backup(data: bytes) -> FleetBackup:
    """Read a backup's file.

    Raises:
        JournalError: it is none, or damaged.
    """
    start = len(MAGIC) + _CHECKSUM.size
    if not data.startswith(MAGIC) or len(data) < start:
        raise JournalError(
            "this is no backup of a fleet's record", hint="`dwcp-migrate cluster export FILE` writes one"
        )
    if _CHECKSUM.unpack_from(data, len(MAGIC))[0] != zlib.crc32(data[start:]):
        raise JournalError("the backup is damaged", hint="take another one")
    try:
        backup: FleetBackup = _decoder.decode(memoryview(data)[start:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(f"the backup cannot be read: {error}") from error
    return backup


def state_of(backup: FleetBackup) -> FleetState:
    """Read the state in a backup.

    Raises:
        JournalError: it is of a newer release, or unsound.
    """
    try:
        fleet = model.decode(backup.state)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise JournalError(f"the backup's state cannot be read: {error}") from error
    wrong = violations(fleet)
    if wrong:
        raise JournalError(f"the backup's state is unsound: {wrong[0]}")
    return fleet


def carry_on(backup: FleetBackup) -> FleetState:
    """Make the state that a new cluster begins with: the backup's, its numbers `LEAP` further on.

    Raises:
        JournalError: as `state_of`.
    """
    fleet = state_of(backup)
    fleet.index += LEAP
    return fleet
