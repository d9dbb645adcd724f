"""Snapshots: whole or not at all, in parts over the wire, never in the tick's way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dwcp_migrate.errors import JournalError
from dwcp_migrate.state.raft import snapshots as module
from dwcp_migrate.state.raft.disk import Disk
from dwcp_migrate.state.raft.messages import SNAPSHOT_PART_BYTES, LogEntry
from dwcp_migrate.state.raft.snapshots import FAILED, IDLE, WRITTEN, Image, Snapshots


def image(size: int = 10, index: int = 5) -> Image:
    return Image(LogEntry(index - 1, 1, 0, b"x"), LogEntry(index, 1, 0, b"y"), ("a", "b"), bytes(size))


def store(directory: Path, held: Image, *, has_room: bool = True) -> Snapshots:
    directory.mkdir(exist_ok=True)
    return Snapshots(directory / "snapshot", lambda: held, lambda _: has_room, Disk())


def transmit(source: Snapshots, destination: Snapshots) -> bool:
    while True:
        part = source.getTransmissionData("follower")
        if destination.setTransmissionData(part):
            return True
        if part is None or part[2]:
            return False


def test_a_snapshot_is_read_back(tmp_path: Path) -> None:
    snapshots = store(tmp_path, image())
    assert snapshots.load() is None
    snapshots.serialize(None, 4)
    snapshots.close()
    assert snapshots.checkSerializing() == (WRITTEN, 4)
    assert snapshots.checkSerializing() == (IDLE, None)
    assert store(tmp_path, image()).load() == image()
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"]


@pytest.mark.parametrize("size", [1, SNAPSHOT_PART_BYTES, 3 * SNAPSHOT_PART_BYTES + 1])
def test_a_snapshot_crosses_in_parts(tmp_path: Path, size: int) -> None:
    source, destination = store(tmp_path / "a", image(size)), store(tmp_path / "b", image(1))
    source.serialize(None, 4)
    source.close()
    source.checkSerializing()
    assert transmit(source, destination)
    assert destination.received() == image(size)


def test_nothing_is_given_while_the_link_is_full_or_there_is_none(tmp_path: Path) -> None:
    snapshots = store(tmp_path, image(), has_room=False)
    assert snapshots.getTransmissionData("f") is None
    snapshots.keep(image())
    assert snapshots.getTransmissionData("f") is None


@pytest.mark.parametrize("position", [0, 9, 12, 20, -1])
def test_a_damaged_snapshot_is_refused(tmp_path: Path, position: int) -> None:
    snapshots = store(tmp_path, image())
    snapshots.keep(image())
    data = bytearray((tmp_path / "snapshot").read_bytes())
    data[position] ^= 1
    (tmp_path / "snapshot").write_bytes(data)
    with pytest.raises(JournalError):
        store(tmp_path, image()).load()


def test_parts_without_a_first_and_more_than_the_limit_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = store(tmp_path, image())
    assert not snapshots.setTransmissionData((b"", False, True))
    monkeypatch.setattr(module, "SNAPSHOT_BYTES_MAX", 8)
    assert not snapshots.setTransmissionData((b"12345678", True, False))
    assert snapshots.setTransmissionData((b"", False, True))
    assert not snapshots.setTransmissionData((b"12345678", True, False))
    assert not snapshots.setTransmissionData((b"9", False, False))
    assert not snapshots.setTransmissionData((b"", False, True))


def test_a_disk_that_takes_no_snapshot_costs_nothing_but_a_longer_log(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "missing" / "snapshot", image, lambda _: True, Disk())
    snapshots.serialize(None, 4)
    snapshots.close()
    assert snapshots.checkSerializing() == (FAILED, 4)
    assert snapshots.checkSerializing() == (IDLE, None)


class HeldDisk(Disk):
    """Runs what is to run beside when it is told."""

    def run_beside(self, act: Callable[[], None]) -> "HeldDisk":
        self.act: Callable[[], None] | None = act
        return self

    def is_alive(self) -> bool:
        return self.act is not None

    def join(self) -> None:
        if self.act is not None:
            self.act()
            self.act = None


def test_a_snapshot_that_is_still_being_written_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    disk = HeldDisk()
    snapshots = Snapshots(tmp_path / "snapshot", lambda: image(index=5), lambda _: True, disk)
    snapshots.serialize(None, 4)
    snapshots.keep(image(index=9))
    disk.join()
    assert snapshots.checkSerializing() == (FAILED, 4)
    assert store(tmp_path, image()).load() == image(index=9)
    assert snapshots.getTransmissionData("f") is not None
    assert module.decode(snapshots._current).last.index == 9
