"""Manifest and list of chunks: what is written is read, and nothing else is."""

import hashlib

import msgspec
import pytest

from dwcp_migrate.bulk.core.chunking import CHUNK_BYTES_MAX, MEAN_BYTES_MIN
from dwcp_migrate.bulk.core.manifest import (
    CHUNKS_MAX,
    LIST_BYTES_MAX,
    MANIFEST_BYTES_MAX,
    OBJECT_BYTES_MAX,
    ChunkList,
    ObjectManifest,
    decode_chunk_list,
    decode_manifest,
    describe_object,
    digest_chunk,
    encode_manifest,
)
from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError

CHUNKS = ChunkList([5, 3], [digest_chunk(b"first"), digest_chunk(b"two")])
MANIFEST = describe_object("fleet-state", MEAN_BYTES_MIN, CHUNKS)


def replaced(**fields: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(MANIFEST, **fields))


def test_manifest_and_list_are_read_as_written() -> None:
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST
    assert decode_chunk_list(MANIFEST, CHUNKS.pack()) == CHUNKS
    assert (MANIFEST.size, MANIFEST.chunks, len(CHUNKS.pack())) == (8, 2, MANIFEST.list_bytes)


def test_object_without_bytes_has_a_manifest() -> None:
    empty = ChunkList([], [])
    manifest = describe_object("empty", MEAN_BYTES_MIN, empty)
    assert decode_chunk_list(decode_manifest(encode_manifest(manifest)), b"") == empty


def test_manifest_at_all_limits_fits_and_is_read() -> None:
    data = replaced(name="n" * 64, size=OBJECT_BYTES_MAX, chunks=CHUNKS_MAX)
    assert decode_manifest(data).size == OBJECT_BYTES_MAX
    assert len(data) <= MANIFEST_BYTES_MAX
    assert decode_manifest(data).list_bytes == LIST_BYTES_MAX


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "n" * 65},
        {"name": "../etc/passwd"},
        {"name": ""},
        {"size": OBJECT_BYTES_MAX + 1},
        {"size": -1},
        {"chunks": CHUNKS_MAX + 1},
        {"chunks": -1},
        {"mean_bytes": MEAN_BYTES_MIN + 1},
        {"list_digest": b"short"},
    ],
    ids=str,
)
def test_manifest_past_a_limit_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(LimitExceededError):
        decode_manifest(replaced(**fields))


def test_bytes_that_are_no_manifest_are_refused() -> None:
    with pytest.raises(LimitExceededError):
        decode_manifest(bytes(MANIFEST_BYTES_MAX + 1))
    for data in (b"", b"\xff", msgspec.msgpack.encode({**msgspec.to_builtins(MANIFEST), "more": 1})):
        with pytest.raises(RemoteProtocolError):
            decode_manifest(data)


def test_name_that_no_object_may_have_is_refused_where_it_is_described() -> None:
    with pytest.raises(LocalProtocolError, match="no name"):
        describe_object("No Name", MEAN_BYTES_MIN, CHUNKS)


def manifest_of(data: bytes, size: int, chunks: int) -> ObjectManifest:
    digest = hashlib.sha256(data).digest()
    return ObjectManifest(name="x", size=size, chunks=chunks, mean_bytes=MEAN_BYTES_MIN, list_digest=digest)


def test_list_with_another_digest_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="wrong digest"):
        decode_chunk_list(MANIFEST, CHUNKS.pack()[:-1] + b"!")


@pytest.mark.parametrize(
    ("lengths", "size", "chunks"),
    [([5], 5, 2), ([5, 3], 8, 1), ([5, 3], 9, 2), ([0], 0, 1), ([CHUNK_BYTES_MAX + 1], CHUNK_BYTES_MAX + 1, 1)],
    ids=str,
)
def test_list_that_does_not_make_the_object_is_refused(lengths: list[int], size: int, chunks: int) -> None:
    data = ChunkList(lengths, [digest_chunk(b"")] * len(lengths)).pack()
    with pytest.raises(RemoteProtocolError):
        decode_chunk_list(manifest_of(data, size, chunks), data)


def test_list_with_the_largest_chunk_is_read() -> None:
    data = ChunkList([CHUNK_BYTES_MAX], [digest_chunk(b"")]).pack()
    assert decode_chunk_list(manifest_of(data, CHUNK_BYTES_MAX, 1), data).span(0, 1) == (0, CHUNK_BYTES_MAX)
