"""Blocks of disk images are found where they lie, raw or qcow2, and no longer once the image changed."""

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dwcp_migrate.errors import StoreError
from dwcp_migrate.store.digests import PageDigest
from dwcp_migrate.store.image import add_image, is_current
from dwcp_migrate.store.qcow2 import HEADER, Extent, extents
from dwcp_migrate.store.reader import PageMissingError, PageReader
from dwcp_migrate.units import KIB, MIB
from tests.store.pages import NOW, shelf_in, some_pages

CLUSTER = 64 * KIB


def qcow2(*clusters: int, features: int = 0, version: int = 3, encryption: int = 0) -> bytes:
    """An image of one L2 table with these entries, whose data clusters are filled with their numbers."""
    head = HEADER.pack(b"QFI\xfb", version, 0, 0, 16, 1 << 30, encryption, 1, CLUSTER, 0, 0, 0, 0)
    head += struct.pack(">QQQII", features, 0, 0, 4, 104)
    l1 = struct.pack(">Q", 2 * CLUSTER | 1 << 63)
    l2 = struct.pack(f">{len(clusters)}Q", *clusters)
    data = b"".join(bytes([number]) * CLUSTER for number in range(3, 8))
    return head.ljust(CLUSTER, b"\0") + l1.ljust(CLUSTER, b"\0") + l2.ljust(CLUSTER, b"\0") + data


def found_in(image: bytes) -> list[Extent]:
    return [*extents(lambda offset, size: image[offset : offset + size], len(image))]


def test_clusters_that_the_guest_wrote_are_found_and_neighbours_are_one_extent() -> None:
    used = 1 << 63
    image = qcow2(3 * CLUSTER | used, 4 * CLUSTER | used, 0, 6 * CLUSTER | used, 5 * CLUSTER | 1, 1 << 62 | 12345)
    assert found_in(image) == [Extent(3 * CLUSTER, 2 * CLUSTER), Extent(6 * CLUSTER, CLUSTER)]


def test_a_cluster_beyond_the_image_is_left_out() -> None:
    assert found_in(qcow2(3 * CLUSTER, 100 * CLUSTER)) == [Extent(3 * CLUSTER, CLUSTER)]


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (qcow2(features=4), "features"),
        (qcow2(version=4), "version 4"),
        (qcow2(encryption=1), "encrypted"),
        (qcow2()[:60], "header"),
        (qcow2()[: 2 * CLUSTER], "tables"),
    ],
)
def test_an_image_that_cannot_be_read_says_why(image: bytes, why: str) -> None:
    with pytest.raises(StoreError, match=why):
        found_in(image)


def test_blocks_of_a_raw_image_are_given_out_until_it_changes(tmp_path: Path) -> None:
    shelf, pages, image = shelf_in(tmp_path), some_pages(300), tmp_path / "base.img"
    pages[7], pages[9] = 0, pages[8]
    image.write_bytes(pages.tobytes() + b"end")
    assert add_image(shelf, "a", image, NOW) == 298
    assert is_current(shelf, "a", image)
    names = PageDigest(shelf.key("a")).of(pages[10:])
    said: list[str] = []
    reader = PageReader(shelf, "a", said.append)
    assert (reader.fetch(names) == pages[10:]).all()
    with image.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"written to")
    with pytest.raises(PageMissingError):
        reader.fetch(names)
    assert not is_current(shelf, "a", image)
    assert len(PageReader(shelf, "a", said.append)) == 0
    assert add_image(shelf, "a", image, NOW) == 298
    assert len(shelf.volumes("a")) == 1


def test_an_image_that_is_no_file_or_has_no_room_is_refused_with_a_reason(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    with pytest.raises(StoreError, match="cannot be read"):
        add_image(shelf, "a", tmp_path / "nowhere", NOW)
    with pytest.raises(StoreError, match="no file"):
        add_image(shelf, "a", Path("/dev/null"), NOW)
    image = tmp_path / "base.img"
    image.write_bytes(some_pages(10).tobytes())
    shelf.bytes_max = 1000
    with pytest.raises(StoreError, match="no room"):
        add_image(shelf, "a", image, NOW)


def test_an_image_that_qemu_wrote_is_read_as_qemu_reads_it(tmp_path: Path) -> None:
    raw, image, pages = tmp_path / "raw", tmp_path / "image.qcow2", some_pages(1000)
    pages[100:400] = 0
    raw.write_bytes(pages.tobytes())
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)], check=True)
    shelf = shelf_in(tmp_path)
    assert add_image(shelf, "a", image, NOW) == 700
    solid = pages[np.flatnonzero(pages.any(axis=1))]
    assert (PageReader(shelf, "a", print).fetch(PageDigest(shelf.key("a")).of(solid)) == solid).all()
    assert shelf.held_bytes() < MIB
