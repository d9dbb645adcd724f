"""What a destination states crosses whole, finds what is there, and takes nothing from the wire on trust."""

import numpy as np
import pytest

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.store.statement import BITS_MAX, HEAD, PIECE_BYTES_MAX, StatementTable, bits_for, bits_of


def hashes(count: int, seed: int = 0) -> Words:
    return np.random.default_rng(seed).integers(0, 1 << 64, count, np.uint64, endpoint=False)


def carried(table: StatementTable) -> tuple[StatementTable, int]:
    pieces = [memoryview(piece) for piece in table.pieces()]
    other = StatementTable(bits_of(pieces[0]))
    for piece in pieces:
        other.take(piece)
    return other, sum(map(len, pieces))


@pytest.mark.parametrize("count", [0, 1, 1000, 200_000])
def test_nearly_all_that_is_stated_is_found_and_costs_little_more_than_two_bytes(count: int) -> None:
    table = StatementTable(bits_for(count))
    for part in np.array_split(hashes(count), 3):
        table.add(part)
    other, wire_bytes = carried(table)
    assert other.stated == table.stated >= count * 0.99
    assert np.count_nonzero(other.likely(hashes(count))) >= table.stated
    assert wire_bytes < count * 2.5 + 1000


def test_a_page_that_is_not_there_seems_so_once_in_many_thousands() -> None:
    table = StatementTable(bits_for(60_000))
    table.add(hashes(60_000))
    assert np.count_nonzero(table.likely(hashes(1 << 20, 1))) < 64


def test_hashes_that_differ_only_in_their_lower_bits_are_told_apart() -> None:
    table = StatementTable(bits_for(4096))
    table.add(np.arange(1, 4097, dtype=np.uint64))
    assert table.stated > 3900
    assert np.count_nonzero(table.likely(np.arange(10_000, 74_096, dtype=np.uint64))) < 64


def test_what_finds_its_bucket_full_is_left_out() -> None:
    table = StatementTable(8)
    table.add(hashes(5000))
    assert table.stated == 256 * 4
    other, _ = carried(table)
    assert np.count_nonzero(other.likely(hashes(5000))) >= 1024


def test_a_piece_that_breaks_a_rule_is_refused() -> None:
    table = StatementTable(8)
    table.add(hashes(100))
    (piece,) = table.pieces()
    version, bits, reserved, begin, buckets, size = HEAD.unpack_from(piece)
    wrong = [
        b"",
        piece[:-1],
        piece + b"x",
        bytes(PIECE_BYTES_MAX + 1),
        HEAD.pack(2, bits, reserved, begin, buckets, size) + piece[HEAD.size :],
        HEAD.pack(version, BITS_MAX + 1, reserved, begin, buckets, size) + piece[HEAD.size :],
        HEAD.pack(version, bits, reserved, 1, buckets, size) + piece[HEAD.size :],
        HEAD.pack(version, bits, reserved, begin, 0, size) + piece[HEAD.size :],
        HEAD.pack(version, bits, reserved, begin, buckets - 1, size) + piece[HEAD.size :],
        HEAD.pack(version, bits, reserved, begin, buckets, len(piece)) + piece[HEAD.size :],
        piece[: HEAD.size] + b"\xff" + piece[HEAD.size + 1 :],
    ]
    for data in wrong:
        with pytest.raises(RemoteProtocolError):
            StatementTable(8).take(memoryview(data))
    with pytest.raises(RemoteProtocolError, match="buckets in one of"):
        StatementTable(9).take(memoryview(piece))
