"""The schema of all measured series: quantity, subject, unit, and their form in a file (pure).

The rule: a series is a ring of `CAPACITY` float32 samples, one a second while there is something to measure, so its
file never grows. A file that cannot be read is no series; it is begun anew.

    0    8   magic "DWCPSER1"
    8    8   float64  seconds of a step
    16   8   float64  when the last sample was taken, seconds since the epoch
    24   8   uint64   samples taken so far; sample i lies at i modulo CAPACITY
    32   4   uint32   CAPACITY
    36   2   uint16   length of the key
    38   n   the key, UTF-8: KIND/QUANTITY/SUBJECT
    252  4   uint32   CRC-32 of the 252 bytes before
    256  4 * CAPACITY   samples, float32, little-endian like all the rest
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from dwcp_migrate.bandwidth.targets import Floats

CAPACITY: Final = 16_384
"""Four and a half hours of a sample a second, 64 KiB."""

HEADER_BYTES: Final = 256
FILE_BYTES: Final = HEADER_BYTES + 4 * CAPACITY
KEY_BYTES_MAX: Final = HEADER_BYTES - 4 - 38

Kind = Literal["link", "interface", "domain", "host"]

LOAD_QUANTITIES: Final[dict[tuple[Kind, str], str]] = {
    ("domain", "cpu"): "cores",
    ("domain", "memory"): "bytes",  # in use
    ("domain", "disk"): "bytes/s",  # read and written
    ("domain", "network"): "bytes/s",  # received and sent
    ("domain", "writes"): "bytes/s",  # to memory, as QEMU measured last
    ("host", "cpu"): "cores",
    ("host", "memory"): "bytes",
    ("host", "stalled"): "1",  # share of the time in which somebody waited for memory
    ("host", "disk"): "bytes/s",  # of its guests
    ("host", "network"): "bytes/s",
}
"""Loads of guests and hosts: means of minutes, from libvirt's bulk statistics, in a store of their own."""

QUANTITIES: Final[dict[tuple[Kind, str], str]] = {
    ("link", "rate"): "bytes/s",  # on the wire, of all migrations to a peer, while they fill it
    ("link", "seen"): "bytes/s",  # the same whether they fill it or not: it carries at least that
    ("link", "rtt"): "s",
    ("link", "retransmits"): "1/s",
    ("interface", "speed"): "bytes/s",
    ("interface", "other"): "bytes/s",  # sent by anybody but migrations
    ("interface", "backlog"): "bytes",  # in the queue of the root discipline
    ("domain", "dirty"): "bytes/s",  # over a second, as measured by QEMU on request
    ("domain", "rewritten"): "bytes/s",  # over a whole pass of a migration: what is written twice in it counts once
    ("domain", "working_set"): "bytes",
    ("domain", "encode"): "bytes/s",  # memory that the hosts encode and decode, where the link left them free
    ("domain", "first_share"): "1",  # bytes on the wire for each raw one, first pass
    ("domain", "later_share"): "1",  # the same in later passes
    **LOAD_QUANTITIES,
}
"""Every quantity and its unit."""

_MAGIC: Final = b"DWCPSER1"
_HEADER: Final = struct.Struct("<8sddQIH")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Name of a series.

    Attributes:
        kind: of the subject.
        quantity: what is measured, see `QUANTITIES`.
        subject: the peer's name, the interface's name, the domain's UUID.
    """

    kind: Kind
    quantity: str
    subject: str

    def __post_init__(self) -> None:
        if (self.kind, self.quantity) not in QUANTITIES:
            raise ValueError(f"no quantity {self.kind}/{self.quantity}")
        if not self.subject or len(self.text.encode()) > KEY_BYTES_MAX:
            raise ValueError(f"a subject has 1 to about {KEY_BYTES_MAX} bytes")

    @property
    def text(self) -> str:
        """As it stands in the file."""
        return f"{self.kind}/{self.quantity}/{self.subject}"


@dataclass(frozen=True, slots=True)
class Ring:
    """Content of a series' file.

    Attributes:
        taken: samples so far, those that were overwritten included.
        last_at: when the last one was taken.
        values: (at most CAPACITY,), the newest samples, oldest first.
    """

    key: Key
    taken: int
    last_at: float
    values: Floats


def header(key: Key, *, step_s: float, last_at: float, taken: int) -> bytes:
    """Write a file's header.

    Args:
        key: of the series.
        step_s: seconds of a step.
        last_at: when the last sample was taken, seconds since the epoch.
        taken: samples so far.

    Returns:
        `HEADER_BYTES` bytes.
    """
    text = key.text.encode()
    data = _HEADER.pack(_MAGIC, step_s, last_at, taken, CAPACITY, len(text)) + text
    data = data.ljust(HEADER_BYTES - 4, b"\0")
    return data + struct.pack("<I", zlib.crc32(data))


def body(values: Floats) -> bytes:
    """Write samples as they lie in a file."""
    return values.astype("<f4").tobytes()


def read(data: bytes) -> Ring | None:
    """Read a whole file; None if it is none, or broken."""
    if len(data) != FILE_BYTES or zlib.crc32(data[: HEADER_BYTES - 4]) != _checksum(data):
        return None
    magic, _, last_at, taken, capacity, length = _HEADER.unpack_from(data)
    if magic != _MAGIC or capacity != CAPACITY or length > KEY_BYTES_MAX:
        return None
    try:
        kind, quantity, subject = data[_HEADER.size : _HEADER.size + length].decode().split("/", 2)
        key = Key(kind, quantity, subject)  # type: ignore[arg-type]  # checked against QUANTITIES by Key itself
    except (UnicodeDecodeError, ValueError):
        return None
    ring = np.frombuffer(data, dtype="<f4", offset=HEADER_BYTES)
    at = taken % CAPACITY
    values = ring[:taken] if taken <= CAPACITY else np.concatenate([ring[at:], ring[:at]])
    return Ring(key, taken, last_at, np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))


def _checksum(data: bytes) -> int:
    (found,) = struct.unpack_from("<I", data, HEADER_BYTES - 4)
    return int(found)
