"""Streams that QEMU would not send, and the kinds that are not parsed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.qemu import Opaque, RamBlocks, ReturnPath, StreamKind, StreamParser
from dwcp_migrate.qemu.blocks import BLOCKS_MAX
from dwcp_migrate.qemu.events import Postcopy
from dwcp_migrate.qemu.stream import SEGMENT_BYTES_MIN
from tests.vectors.load import read

HEADER = b"QEVM\0\0\0\3"
CONFIG = b"\x07" + struct.pack(">I", 6) + b"pc-q35"
START = b"\x01\0\0\0\2\x03ram" + bytes(7) + b"\x04"
BLOCK = b"\x06pc.ram" + struct.pack(">Q", 1 << 20)
SETUP = START + struct.pack(">Q", 1 << 20 | 4) + BLOCK + struct.pack(">Q", 0x10) + b"\x7e\0\0\0\2"
PART = b"\x02\0\0\0\2"
END = struct.pack(">Q", 0x10) + b"\x7e\0\0\0\2"


def record(offset: int, flags: int, body: bytes, name: bytes = b"") -> bytes:
    return struct.pack(">Q", offset | flags) + (bytes([len(name)]) + name if name else b"") + body


def fed(data: bytes) -> StreamParser:
    parser = StreamParser(RamBlocks())
    assert parser.feed(data, flush=True).consumed == len(data)
    return parser


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", StreamKind.TLS),
        (b"QEVM\0\0\0\3", StreamKind.MAIN),
        (b"QEVM\0\0\0\4", StreamKind.OPAQUE),
        (b"\x11\x22\x33\x44\0\0\0\1", StreamKind.MULTIFD),
        (b"\x11\x22\x33\x44\0\0\0\2", StreamKind.OPAQUE),
        (b"GET / HT", StreamKind.OPAQUE),
        (b"Q", StreamKind.UNKNOWN),
    ],
)
def test_the_first_bytes_name_the_kind(head: bytes, kind: StreamKind) -> None:
    assert fed(head).kind is kind


def test_an_nbd_server_that_greets_makes_the_connection_a_disk_copy() -> None:
    parser = StreamParser(RamBlocks())
    parser.observe_reverse(b"NBD")
    parser.observe_reverse(b"MAGICIHAVEOPT")
    assert parser.kind is StreamKind.NBD
    assert parser.feed(b"\0\0\0\3", flush=True).cuts[0].layout is None


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (record(0, 0x08, bytes(4096), b"pc.rom"), "unknown RAM block"),
        (record(1 << 20, 0x08, bytes(4096), b"pc.ram"), "beyond the end"),
        (record(0, 0x02, b"\1", b"pc.ram"), "fill byte"),
        (record(0, 0x80, b""), "flags"),
        (record(0, 0x28, bytes(4096)), "unknown RAM block"),
        (record(0, 0x40, b"\1\xff\xff", b"pc.ram"), "compressed page"),
        (record(4096, 0x10, b""), "offset"),
    ],
)
def test_a_surprise_ends_parsing_with_its_reason_and_loses_nothing(records: bytes, reason: str) -> None:
    parser = fed(HEADER + CONFIG + SETUP + PART + records + bytes(5000))
    assert reason in parser.opaque_reason
    assert Opaque(parser.opaque_reason) in parser.take_events()


def test_ram_is_found_behind_device_state_of_unknown_length() -> None:
    unknown = b"\x04\0\0\0\1\x05other" + bytes(8) + bytes(range(256)) + b"\x7e\0\0\0\1"
    page = record(0, 0x08, b"x" * 4096, b"pc.ram")
    parser = fed(HEADER + CONFIG + unknown + SETUP + PART + page + END)
    assert (parser.pages, parser.opaque_reason) == (1, "")


def test_ram_goes_on_behind_another_iterable_section() -> None:
    other = b"\x02\0\0\0\5" + b"\x08\x09" * 100 + b"\x7e\0\0\0\5"
    page = record(0, 0x08, b"x" * 4096, b"pc.ram")
    again = record(4096, 0x28, b"y" * 4096)
    parser = fed(HEADER + CONFIG + SETUP + PART + page + END + other + PART + again + END)
    assert (parser.pages, parser.opaque_reason) == (2, "")


def test_a_huge_block_carries_its_page_size() -> None:
    setup = START + struct.pack(">Q", 1 << 20 | 4) + BLOCK + struct.pack(">Q", 1 << 21) + END
    parser = fed(HEADER + CONFIG + setup + PART + record(0, 0x08, b"x" * 4096, b"pc.ram") + END)
    assert (parser.pages, parser.opaque_reason) == (1, "")


def test_a_packet_for_too_many_pages_ends_parsing() -> None:
    hello = b"\x11\x22\x33\x44\0\0\0\1" + bytes(56)
    packet = b"\x11\x22\x33\x44\0\0\0\1" + struct.pack(">IIII", 0, 128, 129, 0)
    parser = fed(hello + packet + bytes(1344))
    assert "129 pages" in parser.opaque_reason


def test_a_guest_has_no_more_blocks_than_the_limit() -> None:
    blocks = RamBlocks()
    numbers = [blocks.number(str(index).encode()) for index in range(BLOCKS_MAX + 1)]
    assert numbers[:-1] == list(range(BLOCKS_MAX))
    assert numbers[-1] is None
    assert blocks.number(b"0") == 0


def test_a_bound_below_any_element_is_refused() -> None:
    StreamParser(RamBlocks(), segment_bytes_max=SEGMENT_BYTES_MIN)
    with pytest.raises(ValueError, match="at least"):
        StreamParser(RamBlocks(), segment_bytes_max=SEGMENT_BYTES_MIN - 1)


@given(
    st.binary(max_size=3000),
    st.sampled_from([b"", HEADER, HEADER + CONFIG + SETUP + PART, b"\x11\x22\x33\x44\0\0\0\1"]),
)
def test_garbage_never_raises(garbage: bytes, head: bytes) -> None:
    data = head + garbage
    parser = StreamParser(RamBlocks())
    consumed = parser.feed(data[: len(data) // 2], flush=True).consumed
    assert parser.feed(data[consumed:], flush=True).consumed == len(data) - consumed


@pytest.mark.parametrize("case", ["qemu-7.2-postcopy", "qemu-10.0-postcopy"])
def test_page_requests_are_noticed_however_the_return_path_is_cut(case: str) -> None:
    data = read(case, "return")
    whole = ReturnPath()
    whole.feed(data)
    assert whole.page_requests > 0
    assert not whole.lost
    pieces = ReturnPath()
    assert sum(pieces.feed(data[at : at + 1]) for at in range(len(data))) == whole.page_requests


def test_a_return_path_that_makes_no_sense_is_left_alone() -> None:
    path = ReturnPath()
    assert path.feed(b"\0\x09\0\0") == 0
    assert path.lost
    assert path.feed(b"\0\4\0\0") == 0


def test_a_page_request_tells_of_the_postcopy_that_another_section_hides() -> None:
    parser = StreamParser(RamBlocks())
    hidden = b"\x03\0\0\0\x63" + b"a device of which nothing is known" * 100
    parser.feed(HEADER + CONFIG + SETUP, flush=True)
    parser.take_events()
    parser.feed(hidden, flush=True)
    before = parser.urgent
    parser.note_page_request()
    parser.note_page_request()
    assert (before, parser.urgent, parser.background) == (False, True, True)
    assert parser.feed(hidden, flush=True).cuts[0].background
    assert parser.take_events() == [Postcopy()]
