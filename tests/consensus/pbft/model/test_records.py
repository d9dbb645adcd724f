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
DATA = records.encode_all(ENTRIES, 0, 0)
DURABLE = records.encode_all(ENTRIES, 0, records.ALL_DURABLE)


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
    garbled = bytearray(DURABLE)
    garbled[len(records.encode(ENTRIES[0])) + 9] ^= 0x55
    with pytest.raises(ConsensusError, match="damaged") as caught:
        records.decode(bytes(garbled))
    assert "new key" in caught.value.hint


@pytest.mark.parametrize("damage", ["one bit", "two neighbours", "a zeroed block"])
def test_durable_records_that_are_damaged_anywhere_are_damage(damage: str) -> None:
    """Lengths too: where the next record is looked for must not depend on what is broken."""
    ends = [len(records.encode_all(ENTRIES[:count], 0, 0)) for count in range(len(ENTRIES) + 1)]
    for begin, end, behind in zip(ends, ends[1:], ends[2:], strict=False):
        if behind == len(DURABLE) and damage != "one bit":
            continue  # nothing whole is left behind it
        for at in range(begin, end) if damage == "one bit" else [begin]:
            garbled = bytearray(DURABLE)
            if damage == "a zeroed block":
                garbled[begin:behind] = bytes(behind - begin)
            else:
                garbled[at] ^= 0x10
            if damage == "two neighbours":
                garbled[end + 2] ^= 0x10
            with pytest.raises(ConsensusError, match="damaged"):
                records.decode(bytes(garbled))


def test_whole_records_behind_a_hole_that_was_never_durable_are_a_torn_tail() -> None:
    """A crash may leave later blocks of what was not synced and lose earlier ones."""
    ends = [len(records.encode_all(ENTRIES[:count], 0, 0)) for count in range(len(ENTRIES) + 1)]
    data = records.encode_all(ENTRIES[:2], 0, 0) + records.encode_all(ENTRIES[2:], ends[2], ends[2])
    holed = bytearray(data)
    holed[ends[2] : ends[4]] = bytes(ends[4] - ends[2])
    assert records.decode(bytes(holed)) == (ENTRIES[:2], ends[2])
    holed[ends[1]] ^= 1
    with pytest.raises(ConsensusError, match="damaged"):
        records.decode(bytes(holed))


def test_a_record_that_a_client_wrote_into_its_request_proves_no_damage() -> None:
    inside = records.encode(ENTRIES[2], 10**6, records.ALL_DURABLE)
    torn = records.encode(records.Accepted(0, 1, NAME, inside * 9), 0, 0)[:-20]
    assert records.decode(torn) == ([], 0)


# Of release 0.1.0: no record says where it stands.
FIRST_RELEASE = bytes.fromhex(
    "0000000747824d1892a46c6566740100000007de8b1ca292a46c6566740200000007a98c2c3492a46c65667403"
)


def test_a_journal_of_release_0_1_0_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(FIRST_RELEASE)
    file = JournalFile(path)
    assert file.read() == [records.ViewLeft(1), records.ViewLeft(2), records.ViewLeft(3)]
    file.append(ENTRIES[:1], sync=True)
    assert file.read() == [records.ViewLeft(1), records.ViewLeft(2), records.ViewLeft(3), ENTRIES[0]]
    file.close()


def test_a_damaged_record_of_release_0_1_0_before_a_whole_one_is_damage() -> None:
    garbled = bytearray(FIRST_RELEASE)
    garbled[20] ^= 1
    with pytest.raises(ConsensusError, match="damaged"):
        records.decode(bytes(garbled))


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


def test_damage_of_what_was_synced_is_found_by_what_was_written_later(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    file = JournalFile(path)
    file.append(ENTRIES[:2], sync=True)
    file.append(ENTRIES[2:4], sync=False)
    file.append(ENTRIES[4:], sync=False)
    file.close()
    good = path.read_bytes()
    torn, rotten = bytearray(good), bytearray(good)
    synced = len(records.encode_all(ENTRIES[:2], 0, 0))
    torn[synced + 2] ^= 0x40
    rotten[2] ^= 0x40
    path.write_bytes(torn)
    file = JournalFile(path)
    assert file.read() == ENTRIES[:2]
    file.close()
    path.write_bytes(rotten)
    file = JournalFile(path)
    with pytest.raises(ConsensusError, match="damaged at byte 0"):
        file.read()
    file.close()


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "journal.lock", "journal.name"]
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
