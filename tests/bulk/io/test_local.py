"""An object's file: described by its content, and its list beside it only believed where it fits."""

import os
from pathlib import Path

import pytest

from dwcp_migrate.bulk.core.chunking import CHUNK_BYTES_MAX
from dwcp_migrate.bulk.core.manifest import OBJECT_BYTES_MAX
from dwcp_migrate.bulk.io.local import list_path, open_held, publish_file, save_list
from dwcp_migrate.errors import StoreError
from tests.bulk.io.hosts import content

MEAN = 4096


def test_file_is_described_by_its_content_alone(tmp_path: Path) -> None:
    manifests = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(content(5_000_000))
        held = publish_file(tmp_path / name, "index", MEAN)
        manifests.append(held.manifest)
        memory = bytearray(CHUNK_BYTES_MAX)
        read = [bytes(held.read(number, 1, memory)) for number in range(held.manifest.chunks)]
        assert b"".join(read) == content(5_000_000)
        held.close()
    assert manifests[0] == manifests[1]


def test_list_beside_a_file_spares_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(content(100_000))
    held = publish_file(path, "index", MEAN)
    save_list(held)
    changed = path.stat()
    path.write_bytes(bytes(100_000))
    os.utime(path, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    again = open_held(path, "index", MEAN)
    assert again is not None
    assert again.manifest == held.manifest
    held.close()
    again.close()


@pytest.mark.parametrize("way", ["older", "cut", "other name", "none", "too large"])
def test_list_that_does_not_fit_is_made_anew(tmp_path: Path, way: str) -> None:
    path = tmp_path / "object"
    path.write_bytes(content(100_000))
    held = publish_file(path, "other" if way == "other name" else "index", MEAN)
    save_list(held)
    held.close()
    if way == "older":
        os.utime(list_path(path), ns=(0, 0))
    elif way == "cut":
        list_path(path).write_bytes(list_path(path).read_bytes()[:-1])
    elif way == "none":
        list_path(path).unlink()
    elif way == "too large":
        os.truncate(list_path(path), 1 << 24)
    again = open_held(path, "index", MEAN)
    assert again is not None
    assert (again.manifest.name, again.manifest.size) == ("index", 100_000)
    assert again.missing() == []
    again.close()


def test_file_past_the_limit_is_not_offered(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.touch()
    os.truncate(path, OBJECT_BYTES_MAX + 1)
    with pytest.raises(StoreError, match="at most"):
        publish_file(path, "index")


def test_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert open_held(tmp_path / "object", "index", MEAN) is None
    with pytest.raises(StoreError, match="No such file"):
        publish_file(tmp_path / "object", "index")
