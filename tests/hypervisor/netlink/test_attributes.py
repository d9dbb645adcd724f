"""Netlink attributes, encoded and cut; what is cut short or wrong is left out."""

import pytest

from dwcp_migrate.hypervisor.netlink.attributes import attribute, attributes, find, nested, pairs, text, u32


def test_what_is_encoded_reads_back_in_order() -> None:
    data = attribute(1, b"abc") + u32(2, 7) + text(1, "x") + attribute(3, b"")
    assert list(pairs(data)) == [(1, b"abc"), (2, b"\0\0\0\7"), (1, b"x\0"), (3, b"")]
    assert attributes(data) == {1: b"x\0", 2: b"\0\0\0\7", 3: b""}
    assert len(data) % 4 == 0


def test_a_value_is_found_inside_of_others() -> None:
    data = u32(5, 1) + nested(1, u32(2, 3), nested(4, attribute(6, b"deep")))
    place = find(data, (0, len(data)), 1, 4, 6)
    assert place is not None
    assert data[slice(*place)] == b"deep"
    assert find(data, (0, len(data)), 1, 9) is None
    assert find(data, (0, 0), 5) is None


@pytest.mark.parametrize("cut", range(1, 12))
def test_what_is_cut_short_neither_raises_nor_reads_past_the_end(cut: int) -> None:
    data = attribute(1, b"abcdefgh")[:cut]
    assert all(len(value) <= max(cut - 4, 0) for _, value in pairs(data))


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_length_below_that_of_a_header_ends_the_list(length: int) -> None:
    assert list(pairs(u32(1, 1) + length.to_bytes(2, "little") + bytes(6))) == [(1, b"\0\0\0\1")]
