"""A file that is replaced is the old one or the new one, and its name is on the disk."""

import os
import stat
from pathlib import Path

import pytest

from dwcp_migrate import durable


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, in order: `file` or `directory`."""
    kinds: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        kinds.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return kinds


def test_the_new_file_takes_the_place_of_the_old_one_with_its_mode(tmp_path: Path, synced: list[str]) -> None:
    path = tmp_path / "held"
    path.write_bytes(b"old")
    durable.write_whole(path, b"new", mode=0o640)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert synced == ["file", "directory"]


def test_a_directory_is_made_with_all_above_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        durable.make_directory(tmp_path / "etc/agent/tls", mode=0o750)
        (tmp_path / "there").mkdir()
        durable.make_directory(tmp_path / "there", mode=0o750)
    finally:
        os.umask(before)
    made = [tmp_path / "etc", tmp_path / "etc/agent", tmp_path / "etc/agent/tls"]
    assert [stat.S_IMODE(one.stat().st_mode) for one in made] == 3 * [0o750]
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o700


def test_nobody_else_reads_it_unless_told(tmp_path: Path) -> None:
    durable.write_whole(tmp_path / "held", b"secret")
    assert stat.S_IMODE((tmp_path / "held").stat().st_mode) == 0o600


def test_without_sync_the_disk_is_not_waited_for(tmp_path: Path, synced: list[str]) -> None:
    durable.write_whole(tmp_path / "held", b"new", sync=False)
    assert (tmp_path / "held").read_bytes() == b"new"
    assert synced == []


def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "held"
    path.write_bytes(b"old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        durable.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
