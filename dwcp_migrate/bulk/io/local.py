"""An object's file on this host: described, compared with a version that is wanted, replaced.

The files of an object:

    PATH          the object, whole
    PATH.chunks   its manifest (u16 length before it) and the list of its chunks; else the file is cut anew
    PATH.part     a version that is being fetched; what is right in it is kept when the fetch is begun again
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_migrate.bulk.core.chunking import CHUNK_BYTES_MAX, ChunkCutter, choose_mean_bytes
from dwcp_migrate.bulk.core.manifest import (
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
from dwcp_migrate.bulk.io.held import HeldObject
from dwcp_migrate.durable import sync_directory, write_whole
from dwcp_migrate.errors import RemoteProtocolError, StoreError
from dwcp_migrate.units import MIB, format_bytes

READ_BYTES: Final = 4 * MIB
"""Read at a time while a file is cut."""

_LENGTH: Final = struct.Struct(">H")


def publish_file(path: Path, name: str, mean_bytes: int = 0) -> HeldObject:
    """Describe a file as an object that others may fetch. It may be replaced afterwards, but not written to.

    Args:
        path: of the file.
        name: of the object.
        mean_bytes: of the chunks, as the version before has it; 0 chooses by the file's size.

    Raises:
        StoreError: it cannot be read, or is larger than an object may be.
        LocalProtocolError: no name of an object.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > OBJECT_BYTES_MAX:
                raise StoreError(f"{path} has {format_bytes(size)}, at most {format_bytes(OBJECT_BYTES_MAX)}")
            mean_bytes = mean_bytes or choose_mean_bytes(size)
            chunks = _cut_file(file.fileno(), mean_bytes)
        manifest = describe_object(name, mean_bytes, chunks)
        return HeldObject(manifest, chunks, path, is_whole=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be offered: {error.strerror}") from error


def _cut_file(descriptor: int, mean_bytes: int) -> ChunkList:
    """Cut a file and name its chunks."""
    cutter = ChunkCutter(mean_bytes)
    lengths: list[int] = []
    digests: list[bytes] = []
    kept = bytearray()
    offset = 0
    while block := os.pread(descriptor, READ_BYTES, offset):
        offset += len(block)
        _name_chunks(kept, block, cutter.feed(block), digests, lengths)
    _name_chunks(kept, b"", cutter.finish(), digests, lengths)
    return ChunkList(lengths, digests)


def _name_chunks(kept: bytearray, block: bytes, ended: list[int], digests: list[bytes], lengths: list[int]) -> None:
    """Name the chunks that ended with a block; `kept` are the bytes before it that belong to none yet."""
    kept += block
    at = 0
    with memoryview(kept) as view:
        for length in ended:
            digests.append(digest_chunk(view[at : at + length]))
            at += length
    lengths.extend(ended)
    del kept[:at]


def save_list(held: HeldObject) -> None:
    """Note beside an object's file what its chunks are, so that it need not be read for that again.

    Raises:
        StoreError: it cannot be written.
    """
    manifest = encode_manifest(held.manifest)
    try:
        write_whole(list_path(held.path), _LENGTH.pack(len(manifest)) + manifest + held.packed_list, sync=False)
    except OSError as error:
        raise StoreError(f"{list_path(held.path)} cannot be written: {error.strerror}") from error


def list_path(path: Path) -> Path:
    """Path of the list beside an object's file."""
    return path.with_name(f"{path.name}.chunks")


def part_path(path: Path) -> Path:
    """Path of the version that is being fetched."""
    return path.with_name(f"{path.name}.part")


def open_held(path: Path, name: str, mean_bytes: int) -> HeldObject | None:
    """Open the version of an object that lies at a path; None where there is none.

    Its list is taken from beside it if it is newer than the file, else the file is cut anew.

    Args:
        path: of the file.
        name: of the object.
        mean_bytes: to cut it with.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    with contextlib.suppress(OSError, RemoteProtocolError, struct.error):
        noted = list_path(path).stat()
        data = list_path(path).read_bytes() if noted.st_size <= LIST_BYTES_MAX + MANIFEST_BYTES_MAX + 2 else b""
        (length,) = _LENGTH.unpack_from(data)
        manifest = decode_manifest(data[_LENGTH.size : _LENGTH.size + length])
        chunks = decode_chunk_list(manifest, data[_LENGTH.size + length :])
        if noted.st_mtime_ns >= found.st_mtime_ns and (manifest.name, manifest.size) == (name, found.st_size):
            return HeldObject(manifest, chunks, path, is_whole=True)
    return publish_file(path, name, mean_bytes)


@contextmanager
def open_part(manifest: ObjectManifest, chunks: ChunkList, path: Path) -> Iterator[HeldObject]:
    """Open the part of an object, in which nothing counts as there yet. One fetch at a time has it.

    Args:
        manifest: of the version that is fetched.
        chunks: its list.
        path: that the object will have.

    Raises:
        StoreError: another fetch has it.
        OSError: it cannot be made.
    """
    held = HeldObject(manifest, chunks, part_path(path), is_whole=False)
    try:
        with held.use() as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"{part_path(path)} is being fetched already") from error
        yield held
    except BaseException:
        held.close()
        raise


def verify_part(held: HeldObject) -> None:
    """Look what of a part is there from a fetch that was broken off, and give the file its size.

    Raises:
        OSError: the file fails.
    """
    with held.use() as descriptor:
        known = os.fstat(descriptor).st_size
        for number in range(held.manifest.chunks):
            offset, size = held.chunks.span(number, 1)
            if offset + size > known:
                break
            if digest_chunk(os.pread(descriptor, size, offset)) == held.chunks.digests[number]:
                held.mark((number,))
        os.ftruncate(descriptor, held.manifest.size)


def copy_chunks(old: HeldObject, new: HeldObject) -> int:
    """Copy the chunks that an object shares with another version of it; returns their bytes.

    Args:
        old: the version that is here.
        new: the part of the wanted one.

    Raises:
        OSError: one of the files fails.
    """
    copied = 0
    memory = bytearray(CHUNK_BYTES_MAX)
    for run in _shared_runs(old.chunks, new.chunks, new.missing()):
        with contextlib.suppress(RemoteProtocolError, StoreError):  # the file is not what its list says: it is fetched
            new.put(run.number, run.count, old.read(run.there, run.count, memory))
            copied += new.chunks.span(run.number, run.count)[1]
    return copied


@dataclass(slots=True)
class _SharedRun:
    """Neighbouring chunks that two versions share: `count` of them from `number` on, in the old one from `there` on."""

    number: int
    there: int
    count: int
    size: int


def _shared_runs(old: ChunkList, new: ChunkList, wanted: list[int]) -> list[_SharedRun]:
    """Find wanted chunks in another version, neighbours together up to `CHUNK_BYTES_MAX`."""
    places = {digest: number for number, digest in enumerate(old.digests)}
    runs: list[_SharedRun] = []
    for number in wanted:
        there, size = places.get(new.digests[number]), new.lengths[number]
        if there is None or old.lengths[there] != size:
            continue
        last = runs[-1] if runs else None
        if (
            last is not None
            and (last.number + last.count, last.there + last.count) == (number, there)
            and last.size + size <= CHUNK_BYTES_MAX
        ):
            last.count += 1
            last.size += size
        else:
            runs.append(_SharedRun(number, there, 1, size))
    return runs


def finish_part(held: HeldObject, path: Path, *, durable: bool) -> None:
    """Put a part that is whole in the place of the object's file.

    Args:
        held: the part; it is served on from its new place.
        path: of the object's file.
        durable: wait for the disk.

    Raises:
        OSError: the disk refuses.
        StoreError: the list cannot be written.
    """
    with held.use() as descriptor:
        if durable:
            os.fsync(descriptor)
        list_path(path).unlink(missing_ok=True)
        held.path.replace(path)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    held.path = path
    if durable:
        sync_directory(path.parent)
    save_list(held)
