"""Frames: the documented dump, any cut between bytes, every limit at it and one past it."""

import contextlib
import random
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, VersionMismatchError
from dwcp_migrate.transport.core import frames
from dwcp_migrate.transport.core.frames import HEADER_BYTES, Code, Frame, FrameKind, FrameReader
from dwcp_migrate.transport.core.segment import CONNECTIONS_MAX, PAYLOAD_BYTES_MAX, RAW_BYTES_MAX, SEQUENCE_MAX, URGENT

DOCUMENT = Path(__file__).parents[3] / "docs" / "wire-protocol.md"

DUMPED = [
    frames.hello(bytes(range(32))),
    frames.welcome(),
    Frame(FrameKind.SEGMENT, 3, 7, URGENT, 1, 4096, 0x0123456789ABCDEF, 2, 6, b"tail"),
    Frame(FrameKind.ACK, 3, 7),
    Frame(FrameKind.REJECT, 3, 8, attempt=1),
    Frame(FrameKind.PING, sequence=5),
    frames.close(Code.ABORTED, "stop"),
]
"""What the dump in docs/wire-protocol.md holds, in order."""


def documented_dump() -> bytes:
    block = DOCUMENT.read_text().split("```dump\n")[1].split("```")[0]
    digits = "".join(line.split("|")[0] for line in block.splitlines())
    return bytes.fromhex(re.sub(r"\s", "", digits))


def same(frame: Frame) -> Frame:
    """Payloads compare as bytes."""
    return msgspec.structs.replace(frame, payload=bytes(frame.payload))


def test_the_documented_dump_is_what_we_send() -> None:
    preamble = frames.encode_preamble(frames.Preamble(b"0123456789abcdef"))
    assert documented_dump() == preamble + b"".join(frames.encode(frame) for frame in DUMPED)


def test_the_documented_dump_is_read_whole_byte_by_byte_and_cut_anywhere() -> None:
    dump = documented_dump()
    assert frames.decode_preamble(dump[: frames.PREAMBLE_BYTES]).session_id == b"0123456789abcdef"
    data = dump[frames.PREAMBLE_BYTES :]
    assert [same(frame) for frame in FrameReader().receive(data)] == DUMPED
    reader = FrameReader()
    assert [same(f) for i in range(len(data)) for f in reader.receive(data[i : i + 1])] == DUMPED
    for seed in range(50):
        rng, reader, got, rest = random.Random(seed), FrameReader(), [], data
        while rest:
            cut = rng.randint(1, len(rest))
            got += reader.receive(rest[:cut])
            rest = rest[cut:]
        assert [same(frame) for frame in got] == DUMPED, f"seed {seed}"


@settings(max_examples=40)
@given(st.lists(st.integers(0, 100_000), max_size=4), st.integers(16, 70_000), st.randoms(use_true_random=False))
def test_payloads_of_any_size_survive_any_reads(sizes: list[int], most: int, rng: random.Random) -> None:
    sent = [Frame(FrameKind.SEGMENT, 1, i, 0, 0, size, i, 0, size, rng.randbytes(size)) for i, size in enumerate(sizes)]
    data = memoryview(b"".join(frames.encode(frame) for frame in sent))
    reader, got, at = FrameReader(), [], 0
    while at < len(data):
        space = reader.buffer()
        count = min(len(space), most, len(data) - at)
        space[:count] = data[at : at + count]
        at += count
        got += reader.received(count)
    assert [same(frame) for frame in got] == sent


def header(**fields: int) -> bytes:
    """A SEGMENT header with some fields set wrong; length is given apart from the payload."""
    values = {
        "kind": FrameKind.SEGMENT, "flags": 0, "attempt": 0, "length": 0, "connection": 0, "raw_size": 0,
        "sequence": 0, "checksum": 0, "offset": 0, "total": 0,
    } | fields  # fmt: skip
    return frames._HEADER.pack(*values.values())


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"kind": 0}, RemoteProtocolError),
        ({"kind": 12}, RemoteProtocolError),
        ({"flags": 0x20}, RemoteProtocolError),
        ({"length": PAYLOAD_BYTES_MAX + 1, "total": PAYLOAD_BYTES_MAX + 1}, LimitExceededError),
        ({"total": PAYLOAD_BYTES_MAX + 1, "length": 1}, LimitExceededError),
        ({"raw_size": RAW_BYTES_MAX + 1}, LimitExceededError),
        ({"connection": CONNECTIONS_MAX}, LimitExceededError),
        ({"sequence": SEQUENCE_MAX}, LimitExceededError),
        ({"attempt": frames.ATTEMPTS_MAX + 1}, LimitExceededError),
        ({"offset": 1, "length": 4, "total": 4}, RemoteProtocolError),
        ({"total": 4}, RemoteProtocolError),
        ({"kind": FrameKind.ACK, "length": 1}, LimitExceededError),
        ({"kind": FrameKind.ACK, "checksum": 1}, RemoteProtocolError),
        ({"kind": FrameKind.HELLO, "length": 35}, LimitExceededError),
        ({"kind": FrameKind.HELLO, "length": 37}, LimitExceededError),
        ({"kind": FrameKind.CLOSE, "length": frames.DETAIL_BYTES_MAX + 1}, LimitExceededError),
    ],
)
def test_a_bad_header_is_refused_before_anything_is_allocated(fields: dict[str, int], error: type[Exception]) -> None:
    reader = FrameReader()
    with pytest.raises(error):
        reader.receive(header(**fields))
    with pytest.raises(error):
        reader.receive(header())


@pytest.mark.parametrize(
    "fields",
    [
        {"raw_size": RAW_BYTES_MAX},
        {"connection": CONNECTIONS_MAX - 1},
        {"sequence": SEQUENCE_MAX - 1},
        {"attempt": frames.ATTEMPTS_MAX},
        {"kind": FrameKind.ACK},
    ],
)
def test_a_field_at_its_limit_is_taken(fields: dict[str, int]) -> None:
    assert len(FrameReader().receive(header(**fields))) == 1


def test_the_largest_payload_is_taken() -> None:
    size = PAYLOAD_BYTES_MAX
    (frame,) = FrameReader().receive(header(length=size, total=size) + bytes(size))
    assert len(frame.payload) == size


@given(st.binary(max_size=400))
def test_garbage_gives_frames_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        FrameReader().receive(data)


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n\r\n......", b"DWCP" + bytes(21), b"DWCP" + bytes(19)])
def test_what_is_no_preamble_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        frames.decode_preamble(data)


def test_another_version_is_told_apart_from_garbage() -> None:
    with pytest.raises(VersionMismatchError, match="version 2"):
        frames.decode_preamble(b"DWCP\x00\x02\x00\x00" + bytes(16))
    with pytest.raises(VersionMismatchError):
        frames.read_hello(Frame(FrameKind.HELLO, payload=b"\x00\x02\x00\x00" + bytes(32)))


def test_unknown_preamble_flags_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="flags"):
        frames.decode_preamble(b"DWCP\x00\x01\x00\x01" + bytes(16))


def test_a_frame_that_does_not_fit_its_header_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError):
        frames.encode(Frame(FrameKind.ACK, connection=-1))


def test_a_detail_is_cut_and_made_printable() -> None:
    assert len(frames.close(Code.ABORTED, "x" * 1000).payload) == frames.DETAIL_BYTES_MAX
    assert frames.read_detail(Frame(FrameKind.CLOSE, payload=b"a\x1b[2J\xff")) == "a?[2J\ufffd"


def test_the_header_has_the_documented_size() -> None:
    assert (HEADER_BYTES, frames.PREAMBLE_BYTES) == (40, 24)
