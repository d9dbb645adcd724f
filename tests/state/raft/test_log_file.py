"""The journal: what was synced survives any crash, what was not is missing at the end only."""

import errno
import os
import random
from pathlib import Path

import pytest

from dwcp_migrate.errors import JournalError
from dwcp_migrate.state.fleet.commands import BATCH_BYTES_MAX
from dwcp_migrate.state.raft import log_file as module
from dwcp_migrate.state.raft.disk import Disk
from dwcp_migrate.state.raft.log_file import LogFile, Record


def records(count: int, start: int = 1) -> list[Record]:
    return [(bytes([0]) + f"entry {number}".encode(), number, 1) for number in range(start, start + count)]


def fill(directory: Path, count: int) -> list[Record]:
    """Write entries; the file ends with the last of them, without the zeros behind."""
    journal = LogFile(directory, Disk())
    for record in records(count):
        journal.append(record)
    journal.sync()
    journal.close()
    os.truncate(directory / "log", journal.size_bytes)
    return records(count)


def read(directory: Path) -> list[Record]:
    journal = LogFile(directory, Disk())
    found = journal[:]
    journal.close()
    return found


def test_entries_term_and_vote_come_back(tmp_path: Path) -> None:
    journal = LogFile(tmp_path, Disk())
    for record in records(3):
        journal.append(record)
    journal.set_term(7, "host.example.net")
    journal.set_commit(2)
    journal.store_commit()
    journal.close()
    again = LogFile(tmp_path, Disk())
    assert (again[:], again.term, again.voted_for, again.commit) == (records(3), 7, "host.example.net", 2)
    assert again.last == (3, 1)
    again.close()


def test_a_log_cut_anywhere_gives_the_entries_that_are_whole(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    whole = (tmp_path / "log").read_bytes()
    sizes = [len(module._encode(record)) for record in records(4)]
    for cut in range(len(module.MAGIC), len(whole)):
        (tmp_path / "log").write_bytes(whole[:cut])
        held = sum(1 for number in range(1, 5) if len(module.MAGIC) + sum(sizes[:number]) <= cut)
        assert read(tmp_path) == records(held), cut


def test_a_torn_record_is_cut_off_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with (tmp_path / "log").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff")
    journal = LogFile(tmp_path, Disk())
    assert journal[:] == records(2)
    journal.append(records(1, 3)[0])
    journal.sync()
    journal.close()
    assert read(tmp_path) == records(3)


def test_garbage_behind_the_last_record_is_no_record(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    for seed in range(50):
        with (tmp_path / "log").open("ab") as file:
            file.write(random.Random(seed).randbytes(100))
        assert read(tmp_path) == records(2), seed


def test_a_record_overwrites_zeros_and_the_file_keeps_its_size(tmp_path: Path) -> None:
    journal = LogFile(tmp_path, Disk())
    sizes = set()
    for record in records(50):
        journal.append(record)
        sizes.add((tmp_path / "log").stat().st_size)
    assert len(sizes) == 1
    assert sizes.pop() >= journal.size_bytes + module.GROW_BYTES // 2
    size = module.GROW_FOR_BYTES_MAX // 2
    for index in range(51, 52 + module.GROW_BYTES // size):
        journal.append((bytes(size), index, 1))
    assert (tmp_path / "log").stat().st_size > journal.size_bytes > module.GROW_BYTES
    found = journal[:]
    journal.close()
    assert read(tmp_path) == found


class CountingDisk(Disk):
    """Counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def write(self, file: int, data: bytes, offset: int) -> None:
        self.written += len(data)
        super().write(file, data, offset)


def test_large_entries_are_written_once(tmp_path: Path) -> None:
    disk = CountingDisk()
    journal = LogFile(tmp_path, disk)
    disk.written = 0
    for index in range(1, 41):
        journal.append((bytes(64 * 1024), index, 1))
    journal.sync()
    assert disk.written == journal.size_bytes - len(module.MAGIC)
    found = journal[:]
    journal.close()
    assert read(tmp_path) == found


def test_a_disk_too_full_for_a_shorter_log_leaves_nothing_beside_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = LogFile(tmp_path, Disk())
    for record in records(5):
        journal.append(record)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="no space"):
            journal.drop_first(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "vote"]
    journal.close()
    assert read(tmp_path) == records(5)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_sync_that_fails_is_no_full_disk_whatever_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal = LogFile(tmp_path, Disk())
    journal.append(records(1)[0])

    def fail(_: int) -> None:
        raise OSError(number, "failed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(JournalError, match="failed to keep"):
            journal.sync()
    journal.close()


def test_what_lies_behind_a_torn_record_never_follows_on_a_new_one(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    whole = (tmp_path / "log").read_bytes()
    sizes = [len(module._encode(record)) for record in records(3)]
    second = len(module.MAGIC) + sizes[0]
    (tmp_path / "log").write_bytes(whole[: second + 9] + b"\xff" + whole[second + 10 :] + bytes(4096))
    journal = LogFile(tmp_path, Disk())
    assert journal[:] == records(1)
    journal.append(records(1, 2)[0])  # as long as the one that was torn: the third stood right behind it
    journal.sync()
    journal.close()
    assert read(tmp_path) == records(2)


def test_a_disk_that_lost_what_was_committed_is_found_out(tmp_path: Path) -> None:
    journal = LogFile(tmp_path, Disk())
    for record in records(5):
        journal.append(record)
    journal.set_commit(5)
    journal.store_commit()
    journal.close()
    os.truncate(tmp_path / "log", journal.size_bytes - 1)
    again = LogFile(tmp_path, Disk())
    with pytest.raises(JournalError, match="ends with entry 4, but 5 was committed"):
        again.check(0)
    again.check(5)
    again.close()


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_vote_leaves_the_one_before(tmp_path: Path, torn: int) -> None:
    journal = LogFile(tmp_path, Disk())
    for term in range(1, 3 + torn):
        journal.set_term(term, f"host-{term}")
    newest = journal._number % 2 * module.SLOT_BYTES
    journal.close()
    with (tmp_path / "vote").open("r+b") as file:
        file.seek(newest + 8)
        file.write(b"\xff\xff")
    again = LogFile(tmp_path, Disk())
    assert (again.term, again.voted_for) == (1 + torn, f"host-{1 + torn}")
    again.close()


def test_truncating_and_dropping_keep_the_rest(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    journal = LogFile(tmp_path, Disk())
    journal.truncate(4)
    journal.truncate(9)
    journal.drop_first(2)
    journal.append(records(1, 5)[0])
    journal.sync()
    journal.close()
    assert read(tmp_path) == records(3, 3)


def test_a_full_disk_takes_nothing_and_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 2)
    journal = LogFile(tmp_path, Disk())
    real = os.pwrite
    taken = iter([5])

    def half(file: int, data: bytes, offset: int) -> int:
        count = next(taken, 0)
        if not count:
            raise OSError(errno.ENOSPC, "no space")
        return real(file, data[:count], offset)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="no space"):
        journal.append(records(1, 3)[0])
    assert journal[:] == records(2)
    monkeypatch.setattr(os, "pwrite", real)
    journal.append(records(1, 3)[0])
    journal.sync()
    journal.close()
    assert read(tmp_path) == records(3)


def test_a_disk_without_room_for_zeros_still_takes_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = os.pwrite, []

    def scarce(file: int, data: bytes, offset: int) -> int:
        if len(data) == module.GROW_BYTES:
            tried.append(offset)
            raise OSError(errno.ENOSPC, "no space")
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", scarce)
    fill(tmp_path, 20)
    assert len(tried) == 1
    assert read(tmp_path) == records(20)


def test_a_commit_is_told_only_after_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = LogFile(tmp_path, Disk())
    journal.append(records(1)[0])
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    journal.set_commit(1)
    assert synced == [journal._file]
    journal.set_commit(1)
    journal.sync()
    assert len(synced) == 1
    journal.set_term(2, None)
    assert synced[1:] == []
    journal.sync()
    assert synced[1:] == [journal._vote]
    journal.close()


def test_the_largest_entry_is_read_back_and_a_larger_one_is_not(tmp_path: Path) -> None:
    journal = LogFile(tmp_path, Disk())
    journal.append((bytes(1 + BATCH_BYTES_MAX), 1, 1))
    journal.append((bytes(2 + BATCH_BYTES_MAX), 2, 1))
    journal.close()
    assert [len(record[0]) for record in read(tmp_path)] == [1 + BATCH_BYTES_MAX]


def test_a_name_too_long_for_its_slot_is_refused(tmp_path: Path) -> None:
    journal = LogFile(tmp_path, Disk())
    journal.set_term(1, "x" * module.NAME_BYTES_MAX)
    with pytest.raises(JournalError):
        journal.set_term(1, "x" * (module.NAME_BYTES_MAX + 1))
    journal.close()


def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"something else of somebody's")
    with pytest.raises(JournalError, match="no log"):
        LogFile(tmp_path, Disk())
    assert (tmp_path / "log").read_bytes() == b"something else of somebody's"


def test_random_acts_and_crashes_leave_what_was_synced(tmp_path: Path) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        directory = tmp_path / str(seed)
        journal = LogFile(directory, Disk(durable=False))
        model: list[Record] = []
        for _ in range(40):
            act = rng.random()
            if act < 0.6:
                record = (rng.randbytes(rng.randrange(1, 50)), (model[-1][1] if model else 0) + 1, 1)
                journal.append(record)
                model.append(record)
            elif act < 0.75 and model:
                count = rng.randrange(len(model))
                journal.truncate(count)
                del model[count:]
            elif act < 0.85 and model:
                count = rng.randrange(len(model))
                journal.drop_first(count)
                del model[:count]
            else:
                journal.sync()
                journal.close()
                journal = LogFile(directory, Disk(durable=False))
            assert journal[:] == model, seed
        journal.close()
