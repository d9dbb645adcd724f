"""Description of an object, small enough for any record, and the list of its chunks that it names by digest.

The list as it travels:

    for each chunk, in the object's order: u24 length (big-endian) | 16 bytes of the chunk's SHA-256

The list is believed once its own digest is that of the manifest, each chunk once its digest is that of the list.
SHA-256 because processors compute it: twice as fast here as BLAKE2. 16 bytes of it, because the list travels with
each change: only who makes an object could make two chunks of one name, and needs not.
"""

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

import msgspec

from dwcp_migrate.bulk.core.chunking import CHUNK_BYTES_MAX, MEAN_BYTES_MAX, MEAN_BYTES_MIN
from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.units import GIB

OBJECT_BYTES_MAX: Final = 16 * GIB
"""Largest object; the index of a page store of 2 TiB is 10 GiB."""
CHUNKS_MAX: Final = 1 << 16
"""Most chunks of an object: as many as `OBJECT_BYTES_MAX` has if each is as small as may be at the largest mean."""
DIGEST_BYTES: Final = 16
LIST_DIGEST_BYTES: Final = 32
MANIFEST_BYTES_MAX: Final = 512
"""A manifest is a few numbers, a digest and a name."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names of objects: they become names of files nowhere, but stand in logs and records."""

_ENTRY: Final = struct.Struct(f">BH{DIGEST_BYTES}s")
LIST_BYTES_MAX: Final = CHUNKS_MAX * _ENTRY.size


class ObjectManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Description of one version of an object.

    Attributes:
        name: of the object, the same for all versions.
        size: bytes.
        chunks: number of them.
        mean_bytes: that it was cut with; the next version is cut alike, or shares no chunks with this one.
        list_digest: SHA-256 of the list of chunks; also the name of this version.
    """

    name: str
    size: int
    chunks: int
    mean_bytes: int
    list_digest: bytes

    @property
    def list_bytes(self) -> int:
        """Bytes of the list of chunks as it travels."""
        return self.chunks * _ENTRY.size


@dataclass(frozen=True)
class ChunkList:
    """Chunks of an object, in its order.

    Attributes:
        lengths: bytes of each.
        digests: of each, `DIGEST_BYTES` long.
    """

    lengths: Sequence[int]
    digests: Sequence[bytes]

    @cached_property
    def offsets(self) -> list[int]:
        """Place of each chunk in the object, and the object's size behind them."""
        return [0, *accumulate(self.lengths)]

    def pack(self) -> bytes:
        """Write the list as it travels."""
        pairs = zip(self.lengths, self.digests, strict=True)
        return b"".join(_ENTRY.pack(length >> 16, length & 0xFFFF, digest) for length, digest in pairs)

    def span(self, first: int, count: int) -> tuple[int, int]:
        """Offset and bytes of a run of chunks.

        Args:
            first: number of the first.
            count: of them.
        """
        return self.offsets[first], self.offsets[first + count] - self.offsets[first]


def digest_chunk(data: bytes | bytearray | memoryview) -> bytes:
    """Name a chunk."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def describe_object(name: str, mean_bytes: int, chunks: ChunkList) -> ObjectManifest:
    """Make the manifest of an object.

    Args:
        name: as `NAME` allows.
        mean_bytes: that it was cut with.
        chunks: all of it.

    Raises:
        LocalProtocolError: wrong name, or past a limit of this module.
    """
    manifest = ObjectManifest(
        name=name,
        size=chunks.offsets[-1],
        chunks=len(chunks.lengths),
        mean_bytes=mean_bytes,
        list_digest=hashlib.sha256(chunks.pack()).digest(),
    )
    fault = _fault(manifest)
    if fault:
        raise LocalProtocolError(f"object {name[:64]!r}: {fault}")
    return manifest


def encode_manifest(manifest: ObjectManifest) -> bytes:
    """Write a manifest, in msgpack."""
    return msgspec.msgpack.encode(manifest)


def decode_manifest(data: bytes) -> ObjectManifest:
    """Read a manifest from elsewhere.

    Raises:
        LimitExceededError: too large.
        RemoteProtocolError: not a manifest, or one that no object has.
    """
    if len(data) > MANIFEST_BYTES_MAX:
        raise LimitExceededError(f"manifest of {len(data)} bytes, at most {MANIFEST_BYTES_MAX}")
    try:
        manifest = msgspec.msgpack.decode(data, type=ObjectManifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"manifest: {error}") from error
    fault = _fault(manifest)
    if fault:
        raise LimitExceededError(f"manifest: {fault}")
    return manifest


def _fault(manifest: ObjectManifest) -> str:
    """Find the fault of a manifest, empty if it has none."""
    if not NAME.fullmatch(manifest.name):
        return "no name of an object"
    if not 0 <= manifest.size <= OBJECT_BYTES_MAX:
        return f"{manifest.size} bytes, at most {OBJECT_BYTES_MAX}"
    if not 0 <= manifest.chunks <= CHUNKS_MAX:
        return f"{manifest.chunks} chunks, at most {CHUNKS_MAX}"
    if not MEAN_BYTES_MIN <= manifest.mean_bytes <= MEAN_BYTES_MAX or manifest.mean_bytes & (manifest.mean_bytes - 1):
        return f"chunks of {manifest.mean_bytes} bytes in the mean"
    if len(manifest.list_digest) != LIST_DIGEST_BYTES:
        return f"digest of {len(manifest.list_digest)} bytes"
    return ""


def decode_chunk_list(manifest: ObjectManifest, data: bytes) -> ChunkList:
    """Read the list of an object's chunks.

    Args:
        manifest: believed already.
        data: from a peer.

    Raises:
        RemoteProtocolError: not the list that the manifest names, or lengths that do not make this object.
    """
    if hashlib.sha256(data).digest() != manifest.list_digest:
        raise RemoteProtocolError(f"list of chunks of {manifest.name}: wrong digest")
    if len(data) != manifest.list_bytes:
        raise RemoteProtocolError(f"list of chunks of {manifest.name}: {len(data)} bytes for {manifest.chunks} chunks")
    entries = list(_ENTRY.iter_unpack(data))
    found = ChunkList([high << 16 | low for high, low, _ in entries], [digest for _, _, digest in entries])
    if not all(0 < length <= CHUNK_BYTES_MAX for length in found.lengths):
        raise LimitExceededError(f"list of chunks of {manifest.name}: a chunk of no bytes, or over {CHUNK_BYTES_MAX}")
    if found.offsets[-1] != manifest.size:
        raise RemoteProtocolError(f"list of chunks of {manifest.name}: {found.offsets[-1]} bytes, not {manifest.size}")
    return found
