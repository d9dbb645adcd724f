"""Pages on the shelf: kept once, found again, evicted in order, never given out when they are not what they were."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwcp_migrate.errors import NotFoundError, StoreError
from dwcp_migrate.qemu.layout import Bytes, Words
from dwcp_migrate.store.digests import PageDigest
from dwcp_migrate.store.reader import PageMissingError, PageReader, verify_store
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.store.writer import StoreFiller, VolumeWriter
from dwcp_migrate.units import MIB
from tests.store.pages import NOW, filled, shelf_in, some_pages


def reader(shelf: Shelf, scope: str = "a") -> tuple[PageReader, list[str]]:
    said: list[str] = []
    return PageReader(shelf, scope, said.append), said


def names(shelf: Shelf, pages: Words, scope: str = "a") -> Bytes:
    return PageDigest(shelf.key(scope)).of(pages)


def test_pages_are_kept_once_without_zeros_and_come_back_after_a_restart(tmp_path: Path) -> None:
    pages = some_pages(1000)
    pages[3], pages[10] = 0, pages[11]
    report = filled(shelf_in(tmp_path), "a", pages)
    assert (report.kept, report.zero, report.there_already, report.stopped) == (998, 1, 1, "")
    assert report.held_bytes < 998 * 4096 * 3 / 4
    again = shelf_in(tmp_path)
    assert filled(again, "a", pages).kept == 0
    found, said = reader(again)
    solid = pages[pages.any(axis=1)]
    assert (found.fetch(names(again, solid)) == solid).all()
    assert (found.statement().stated > 980, said) == (True, [])


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    filled(shelf, "a", some_pages(10))
    modes = {oct(path.stat().st_mode & 0o777) for path in shelf.root.rglob("*") if path.is_file()}
    assert modes == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in [shelf.root, *shelf.root.glob("*/")]} == {"0o700"}
    shelf.root.chmod(0o755)
    with pytest.raises(StoreError, match="open to others"):
        shelf_in(tmp_path)


def test_two_scopes_with_equal_pages_share_nothing(tmp_path: Path) -> None:
    shelf, pages = shelf_in(tmp_path), some_pages(200)
    filled(shelf, "a", pages)
    ours, _ = reader(shelf, "b")
    assert len(ours) == 0
    assert filled(shelf, "b", pages).kept == 200
    ours, _ = reader(shelf, "b")
    with pytest.raises(PageMissingError):
        ours.fetch(names(shelf, pages, "a"))
    assert (ours.fetch(names(shelf, pages, "b")) == pages).all()
    one, two = ({path.name for path in folder.iterdir()} for folder in shelf.root.glob("*/"))
    assert not one & two


def test_room_is_made_by_the_volume_of_no_use_for_longest(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path, 38 * MIB)
    for number in range(4):
        assert not filled(shelf, f"{number}", some_pages(4000, number), NOW + number).stopped
        if number == 1:
            shelf.touch(shelf.volumes("0"), NOW + 1.5)
    assert shelf.held_bytes() <= 38 * MIB
    assert [bool(shelf.volumes(f"{number}")) for number in range(4)] == [True, False, True, True]


def test_a_fill_larger_than_the_store_keeps_its_beginning_and_says_so(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path, 33 * MIB)
    report = filled(shelf, "a", some_pages(20_000))
    assert "store.bytes_max" in report.stopped
    assert 4000 < report.kept < 20_000
    assert shelf.held_bytes() <= 33 * MIB
    found, _ = reader(shelf)
    assert len(found) == report.kept


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "index"])
def test_what_is_damaged_is_never_given_out_and_is_discarded_with_a_word(tmp_path: Path, damage: str) -> None:
    shelf, pages = shelf_in(tmp_path), some_pages(500)
    filled(shelf, "a", pages)
    (volume,) = shelf.volumes("a")
    path = volume.index if damage == "index" else volume.pages
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data[: {"truncated": len(data) - 5000, "emptied": 0}.get(damage, len(data))])
    found, said = reader(shelf)
    with pytest.raises(PageMissingError):
        found.fetch(names(shelf, pages))
    assert "discarded" in said[0]
    assert shelf.volumes("a") == []
    assert filled(shelf, "a", pages).kept == 500


def test_an_evicted_volume_stays_readable_for_who_reads_it(tmp_path: Path) -> None:
    shelf, pages = shelf_in(tmp_path), some_pages(100)
    filled(shelf, "a", pages)
    found, _ = reader(shelf)
    shelf.discard(*shelf.volumes("a"))
    assert (found.fetch(names(shelf, pages)) == pages).all()
    found.close(NOW)
    assert shelf.volumes() == []


def test_use_is_noted_and_what_was_of_none_expires(tmp_path: Path) -> None:
    shelf, pages = shelf_in(tmp_path), some_pages(100)
    for scope in ("a", "b"):
        filled(shelf, scope, pages)
        os.utime(shelf.volumes(scope)[0].index, (NOW, NOW))
    found, _ = reader(shelf)
    found.fetch(names(shelf, pages))
    found.close(NOW + 100)
    assert shelf.expire(50, NOW + 120) == 1
    assert [len(shelf.volumes(scope)) for scope in ("a", "b")] == [1, 0]


def test_a_writer_that_is_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    program = (
        "import sys, time; from pathlib import Path; from tests.store.pages import *\n"
        "from dwcp_migrate.store.writer import VolumeWriter\n"
        "writer = VolumeWriter(shelf_in(Path(sys.argv[1])), 'a', 'sent')\n"
        "pages = some_pages(16); writer.add(pages, pages[:, 0], pages[:, 1]); writer._file.flush()\n"
        "print('written', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"written\n"
    assert shelf.make_room(MIB)
    assert len([*shelf.root.glob("*/*.part")]) == 1, "its writer lives"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert shelf.volumes() == []
    assert shelf.make_room(MIB)
    assert [*shelf.root.glob("*/*.part")] == []


def test_pages_without_an_index_and_an_index_without_pages_are_removed(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    filled(shelf, "a", some_pages(50))
    filled(shelf, "a", some_pages(50, 1))
    one, two = shelf.volumes("a")
    one.index.unlink()
    two.pages.unlink()
    assert shelf.volumes("a") == []
    shelf.expire(1e9, time.time())
    assert [path for path in shelf.root.glob("*/*") if path.is_file()] == []


def test_a_shelf_that_cannot_be_written_ends_the_fill_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, pages = shelf_in(tmp_path), some_pages(500)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VolumeWriter, "add", full)
    report = filled(shelf, "a", pages)
    assert "No space left" in report.stopped
    assert [*shelf.root.glob("*/*.part")] == []


def test_wipe_takes_the_secret_too_and_another_secret_makes_the_old_pages_void(tmp_path: Path) -> None:
    shelf, pages = shelf_in(tmp_path), some_pages(50)
    filled(shelf, "a", pages)
    old = names(shelf, pages)
    assert shelf.wipe() == 1
    assert not (names(shelf, pages) == old).all()
    filled(shelf, "a", pages)
    (shelf.root / "secret").write_bytes(b"short")
    assert shelf_in(tmp_path).volumes() == []


def test_verify_reads_everything_and_discards_what_does_not_fit(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    filled(shelf, "a", some_pages(300))
    filled(shelf, "b", some_pages(300))
    assert verify_store(shelf) == (600, [])
    (volume,) = shelf.volumes("b")
    volume.pages.write_bytes(bytes(volume.pages.stat().st_size))
    good, wrong = verify_store(shelf)
    assert (good, len(wrong)) == (300, 1)
    assert len(shelf.volumes()) == 1


def test_a_scope_or_an_image_is_removed_by_name(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    filled(shelf, "a", some_pages(30))
    filled(shelf, "b", some_pages(30))
    assert shelf.remove(scope="a") == 1
    with pytest.raises(NotFoundError):
        shelf.remove(scope="a")
    assert len(shelf.volumes()) == 1


def test_a_page_already_there_counts_as_use(tmp_path: Path) -> None:
    shelf, pages = shelf_in(tmp_path), some_pages(50)
    filled(shelf, "a", pages, NOW)
    StoreFiller(shelf, "a", "received").fill(pages, NOW + 9)
    (volume,) = shelf.volumes("a")
    assert volume.used_at == NOW + 9


def test_nothing_is_removed_that_is_none_of_the_stores(tmp_path: Path) -> None:
    root = tmp_path / "store"
    for name in ("images", "0" * 32):
        (root / name).mkdir(parents=True, mode=0o700)
        (root / name / "disk.qcow2").write_text("a disk")
    (root / "images" / "old.index").write_text("of somebody else")
    root.chmod(0o700)
    shelf = shelf_in(tmp_path)
    filled(shelf, "a", some_pages(10))
    shelf.expire(0, NOW + 1)
    shelf.wipe()
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
        f"{'0' * 32}/disk.qcow2",
        "images/disk.qcow2",
        "images/old.index",
        "lock",
        "secret",
    ]


def test_pages_that_were_evicted_are_counted_and_those_that_expired_are_not(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path, 64 * MIB)
    filled(shelf, "a", some_pages(300))
    filled(shelf, "a", some_pages(200, seed=1), NOW + 1)
    assert shelf.evicted_pages() == 0
    assert shelf.make_room(64 * MIB - shelf.volumes()[0].held_bytes - 1000)
    assert shelf_in(tmp_path).evicted_pages() == 300
    assert shelf.expire(1.0, NOW + 1000) == 1
    assert shelf.evicted_pages() == 300
    (shelf.root / "evicted").write_bytes(b"torn")
    assert shelf.evicted_pages() == 0
