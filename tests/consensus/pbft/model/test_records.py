"""The journal: every entry survives, a torn tail costs nothing that was promised, damage is told from it."""

import errno
import os
import random
import resource
from pathlib import Path

import pytest

from dwcp_migrate.consensus.io.journal_file import JournalFile
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.messages import NULL_BATCH, EpochLink, NewView, StableProof
from dwcp_migrate.errors import ConsensusError

NAME = b"n" * 32
ENTRIES: list[records.Entry] = [
    records.Stable(StableProof(0, 4, NAME, {"r0": bytes(64)}), b"state"),
    records.Linked(EpochLink(StableProof(0, 4, NAME, {"r0": bytes(64)}), (NAME,), b"header")),
    records.ViewLeft(3),
    records.Entered(NewView(0, 3, (), bytes(64))),
    records.Accepted(3, 5, NAME, NULL_BATCH),
    records.WasPrepared(3, 5, NAME),
    records.Committed(5, NAME),
]
DATA = b"".join(map(records.encode, ENTRIES))


def test_there_is_an_example_of_every_entry() -> None:
    assert {type(entry) for entry in ENTRIES} == set(records.Entry.__args__)
    assert records.decode(DATA) == (ENTRIES, len(DATA))


def test_a_tail_torn_at_any_byte_leaves_the_whole_records_before_it() -> None:
    ends = [0]
    for entry in ENTRIES:
        ends.append(ends[-1] + len(records.encode(entry)))
    for cut in range(len(DATA) + 1):
        entries, end = records.decode(DATA[:cut])
        whole = max(index for index, at in enumerate(ends) if at <= cut)
        assert (entries, end) == (ENTRIES[:whole], ends[whole])


def test_a_garbled_last_record_is_a_torn_tail() -> None:
    last = len(records.encode(ENTRIES[-1]))
    for at in range(len(DATA) - last, len(DATA)):
        garbled = bytearray(DATA)
        garbled[at] ^= 0x55
        assert records.decode(bytes(garbled))[0] == ENTRIES[:-1]


def test_a_garbled_record_with_whole_ones_behind_it_is_damage() -> None:
    garbled = bytearray(DATA)
    garbled[len(records.encode(ENTRIES[0])) + 9] ^= 0x55
    with pytest.raises(ConsensusError, match="damaged") as caught:
        records.decode(bytes(garbled))
    assert "new key" in caught.value.hint


def test_zeros_that_a_file_system_left_at_the_end_are_a_torn_tail() -> None:
    assert records.decode(DATA + bytes(4096)) == (ENTRIES, len(DATA))


def test_a_record_of_an_unknown_kind_is_another_version() -> None:
    import struct
    import zlib

    payload = b"\x91\xa7unknown"
    with pytest.raises(ConsensusError, match="another version"):
        records.decode(struct.pack(">II", len(payload), zlib.crc32(payload)) + payload)


def test_random_bytes_never_do_more_than_fail(tmp_path: Path) -> None:
    rng = random.Random(3)
    for _ in range(300):
        try:
            records.decode(rng.randbytes(rng.randrange(200)))
        except ConsensusError:
            continue
    del tmp_path


# --- on the disk


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    file = JournalFile(tmp_path / "sub" / "journal")
    file.append(ENTRIES[:2], sync=True)
    file.append(ENTRIES[2:], sync=False)
    file.close()
    again = JournalFile(tmp_path / "sub" / "journal")
    assert again.read() == ENTRIES
    again.close()


def test_a_torn_tail_is_cut_off_so_that_new_records_follow_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(DATA[:-3])
    file = JournalFile(path)
    assert file.read() == ENTRIES[:-1]
    file.append(ENTRIES[-1:], sync=True)
    assert file.read() == ENTRIES
    file.close()


def test_a_replaced_journal_holds_only_the_new_records_and_takes_more(tmp_path: Path) -> None:
    file = JournalFile(tmp_path / "journal")
    file.append(ENTRIES, sync=True)
    file.replace(ENTRIES[:1])
    file.append(ENTRIES[1:2], sync=True)
    assert file.read() == ENTRIES[:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "journal.lock"]
    file.close()


def test_two_replicas_cannot_share_a_journal(tmp_path: Path) -> None:
    file = JournalFile(tmp_path / "journal")
    with pytest.raises(ConsensusError, match="in use"):
        JournalFile(tmp_path / "journal")
    file.close()
    JournalFile(tmp_path / "journal").close()


def test_a_directory_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConsensusError, match="journal"):
        JournalFile(tmp_path / "file" / "journal")


def test_a_full_disk_leaves_whole_records_and_can_be_tried_again(tmp_path: Path) -> None:
    """RLIMIT_FSIZE plays the full disk: the write that crosses it is cut short, the next one fails."""
    path = tmp_path / "journal"
    file = JournalFile(path)
    file.append(ENTRIES[:2], sync=True)
    before = path.stat().st_size
    child = os.fork()
    if child == 0:
        os._exit(_append_on_a_full_disk(file, before + 20))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EFBIG
    assert path.stat().st_size == before
    file.append(ENTRIES[2:], sync=True)
    assert file.read() == ENTRIES
    file.close()


def _append_on_a_full_disk(file: JournalFile, size: int) -> int:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        file.append([records.Accepted(0, 6, NAME, bytes(1000))], sync=True)
    except OSError as error:
        return error.errno or 1
    return 0
