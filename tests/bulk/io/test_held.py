"""Objects of a host: which versions are offered, how many, and what a closed one says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_migrate.bulk.core.manifest import ChunkList, describe_object, digest_chunk
from dwcp_migrate.bulk.io.held import OBJECTS_MAX, HeldObject, HeldObjects
from dwcp_migrate.errors import RemoteProtocolError, StoreError


def made(path: Path, name: str, data: bytes = b"a", *, is_whole: bool = True) -> HeldObject:
    chunks = ChunkList([1] * len(data), [digest_chunk(bytes([one])) for one in data])
    if is_whole:
        path.write_bytes(data)
    return HeldObject(describe_object(name, 2048, chunks), chunks, path, is_whole=is_whole)


@pytest.fixture
def objects() -> Iterator[HeldObjects]:
    found = HeldObjects()
    yield found
    found.close()


def test_two_newest_versions_of_a_name_are_offered(objects: HeldObjects, tmp_path: Path) -> None:
    versions = [made(tmp_path / data.decode(), "index", data) for data in (b"a", b"b", b"c")]
    for one in versions:
        objects.add(one)
    assert [objects.find(one.manifest.list_digest) for one in versions] == [None, *versions[1:]]
    assert objects.newest("index") is versions[2]
    with pytest.raises(StoreError, match="not held"):
        versions[0].read(0, 1, bytearray(1))


def test_version_that_is_still_fetched_is_not_the_newest(objects: HeldObjects, tmp_path: Path) -> None:
    whole, part = made(tmp_path / "a", "index", b"a"), made(tmp_path / "b", "index", b"b", is_whole=False)
    objects.add(whole)
    objects.add(part)
    assert objects.newest("index") is whole
    part.put(0, 1, memoryview(b"b"))
    assert objects.newest("index") is part


def test_objects_are_offered_up_to_the_limit_and_not_past_it(objects: HeldObjects, tmp_path: Path) -> None:
    for number in range(OBJECTS_MAX):
        objects.add(made(tmp_path / str(number), f"n{number}", bytes([number])))
    further = made(tmp_path / "more", "more", b"\xff")
    with pytest.raises(StoreError, match="offered already"):
        objects.add(further)
    further.close()


def test_run_with_one_wrong_chunk_is_not_kept_at_all(objects: HeldObjects, tmp_path: Path) -> None:
    part = made(tmp_path / "p", "index", b"abc", is_whole=False)
    objects.add(part)
    with pytest.raises(RemoteProtocolError, match="chunk 2"):
        part.put(0, 3, memoryview(b"abX"))
    assert part.missing() == [0, 1, 2]
    assert part.path.read_bytes() == b""


def test_object_stays_open_for_who_uses_it_while_it_is_closed(objects: HeldObjects, tmp_path: Path) -> None:
    held = made(tmp_path / "a", "index")
    objects.add(held)
    with held.use() as descriptor:
        objects.remove(held)
        assert Path(f"/proc/self/fd/{descriptor}").exists()
    with pytest.raises(StoreError), held.use():
        pass
