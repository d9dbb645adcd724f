"""The decoder against payloads that no encoder of ours makes."""

import struct

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dwcp_migrate.delta import RAW_BYTES_MAX, Codec, Coding, Compressor, Decompressor, PageDecoder, PageEncoder
from dwcp_migrate.delta.codec import WINDOW_BYTES_MAX
from dwcp_migrate.delta.payload import (
    BODY_BYTES_MAX,
    DELTA,
    DUPLICATE,
    LITERAL_RUNS_MAX,
    LOCAL,
    NEW,
    NO_SLOT,
    PAGES,
    SLOTS_MAX,
    STATE,
    Head,
    pack_column,
)
from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.qemu import layout as runs
from tests.delta.streams import PAGE, noise, stream, touched

SLOTS = 4


def payload(  # noqa: PLR0913 - one for each column of the format
    *,
    kind: list[int],
    count: list[int],
    op: list[int],
    ref: list[int] | None = None,
    store: list[int] | None = None,
    body_pages: int = 0,
    flags: int = STATE,
    literal: bytes = b"",
) -> bytes:
    columns = b"".join(
        (
            bytes(kind),
            pack_column(np.array(count, np.uint32)),
            pack_column(np.zeros(len(kind), np.uint64)),
            literal,
            bytes(op),
            pack_column(np.array(ref or [], np.uint32)),
            pack_column(np.array(store or [NO_SLOT] * body_pages, np.uint32)),
        )
    )
    body = bytes(body_pages * PAGE) + columns
    head = Head(PAGES, 0, flags, len(body), 0, len(kind), len(literal), len(op), body_pages)
    return head.pack() + body


def decode(data: bytes, raw_bytes: int = PAGE) -> memoryview:
    decoder = PageDecoder(SLOTS * PAGE)
    return decoder.apply(decoder.prepare(data, raw_bytes, Decompressor()))


def test_the_smallest_good_payload_is_accepted() -> None:
    assert decode(payload(kind=[runs.PAGES], count=[1], op=[NEW], body_pages=1)) == bytes(PAGE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (payload(kind=[9], count=[1], op=[NEW], body_pages=1), "run of kind 9"),
        (payload(kind=[runs.PAGES], count=[0], op=[], body_pages=0), "impossible count"),
        (payload(kind=[runs.PAGES], count=[2**32 - 1], op=[NEW], body_pages=1), "impossible count"),
        (payload(kind=[runs.ZEROS], count=[PAGE - 1], op=[]), "do not add up"),
        (payload(kind=[runs.LITERAL], count=[PAGE], op=[], literal=b"x"), "literal bytes"),
        (payload(kind=[runs.ZEROS], count=[PAGE], op=[NEW], body_pages=1), "room for 0 pages"),
        (payload(kind=[runs.PAGES], count=[1], op=[7]), "unknown operation"),
        (payload(kind=[runs.PAGES], count=[1], op=[6]), "cut short"),
        (payload(kind=[runs.PAGES], count=[1], op=[255]), "unknown operation"),
        (payload(kind=[runs.PAGES], count=[1], op=[NEW], body_pages=0), "do not match"),
        (payload(kind=[runs.PAGES], count=[1], op=[DUPLICATE], ref=[SLOTS]), "slot beyond"),
        (payload(kind=[runs.PAGES], count=[1], op=[DUPLICATE], ref=[NO_SLOT]), "slot beyond"),
        (payload(kind=[runs.PAGES], count=[1], op=[DUPLICATE], ref=[0]), "empty slot"),
        (payload(kind=[runs.PAGES], count=[1], op=[DELTA], ref=[0], body_pages=1), "empty slot"),
        (payload(kind=[runs.PAGES], count=[1], op=[NEW], store=[SLOTS], body_pages=1), "slot beyond"),
        (payload(kind=[runs.PAGES], count=[1], op=[NEW], store=[0], body_pages=1, flags=0), "out of order"),
        (payload(kind=[runs.PAGES], count=[1], op=[LOCAL], ref=[0]), "no content"),
        (payload(kind=[runs.PAGES], count=[1], op=[LOCAL], ref=[1]), "no content"),
        (payload(kind=[runs.PAGES], count=[1], op=[NEW], body_pages=1) + b"x", "holds"),
        (payload(kind=[runs.PAGES], count=[1], op=[NEW], body_pages=1)[:-1], "holds"),
        (b"\1", "payload of 1 bytes"),
        (b"\3\0\0\0\0\0\0\0", "begins with"),
        (b"\0\0\4\0\0\0\0\0", "begins with"),
        (b"\0\0\0\1\0\0\0\0", "begins with"),
        (b"\1\0\1\0" + bytes(36), "begins with"),  # a reset without its turn
        (b"\0\7\0\0\0\x10\0\0" + bytes(9), "unknown codec"),
        (b"\0\1\0\0\0\x10\0\0" + bytes(9), "does not decompress"),
        (b"\0\2\0\0\0\x10\0\0" + bytes(9), "does not decompress"),
        (b"\0\2\0\0\0\x10\0\0" + zstandard.compress(bytes(PAGE + 1)), "announced were"),
        (b"\0\2\0\0\0\x10\0\0" + zstandard.compress(bytes(PAGE)) + b"x", "does not decompress"),
    ],
)
def test_a_payload_that_breaks_a_rule_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        decode(data)


def test_sizes_at_the_limit_pass_and_one_past_it_is_refused() -> None:
    head = struct.pack("<BBBBI", 0, 0, 0, 0, RAW_BYTES_MAX)
    assert len(decode(head + bytes(RAW_BYTES_MAX), RAW_BYTES_MAX)) == RAW_BYTES_MAX
    with pytest.raises(LimitExceededError, match="raw bytes"):
        decode(head, RAW_BYTES_MAX + 1)
    with pytest.raises(LimitExceededError, match="body of"):
        decode(Head(PAGES, 2, 0, BODY_BYTES_MAX + 1).pack())


def test_literal_runs_at_the_limit_pass_and_one_past_it_is_refused() -> None:
    for count in (LITERAL_RUNS_MAX, LITERAL_RUNS_MAX + 1):
        data = payload(kind=[runs.LITERAL] * count, count=[1] * count, op=[], literal=b"x" * count, flags=0)
        if count > LITERAL_RUNS_MAX:
            with pytest.raises(LimitExceededError, match="literal runs"):
                decode(data, count)
        else:
            assert decode(data, count) == b"x" * count


def test_a_zstd_window_past_its_limit_is_refused() -> None:
    raw = bytes(PAGE)
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=-1)
    frame = packed.compress(raw) + packed.flush()
    with pytest.raises(LimitExceededError, match=f"window of {1 << 24}"):
        decode(struct.pack("<BBBBI", 0, 2, 0, 0, PAGE) + frame)
    assert WINDOW_BYTES_MAX < 1 << 24


def test_a_cache_past_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        PageDecoder((SLOTS_MAX + 1) * PAGE)
    with pytest.raises(ValueError, match="at most"):
        PageEncoder((SLOTS_MAX + 1) * PAGE)


def encoded() -> list[tuple[bytes, int]]:
    """Good payloads to damage."""
    encoder, result = PageEncoder(SLOTS * PAGE), []
    for turn in range(3):
        data = stream((0, touched(noise(0), turn)), (1, noise(0)), (2, noise(2)), (3, b"\0"), (4, noise(2)))
        cut = StreamParser(RamBlocks()).feed(data, flush=True).cuts[0]
        job = encoder.classify(memoryview(data), cut)
        result.append((job.encode(Coding(Codec.NONE), Compressor()), job.raw_bytes))
    return result


GOOD = encoded()


DAMAGE = (
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=8),
    st.integers(0, 99),
)
GARBAGE = (st.binary(max_size=400), st.integers(0, 2 * PAGE))
DECOMPRESSOR = Decompressor()


def check_damaged(which: int, flips: list[tuple[int, int]], cut_off: int) -> None:
    decoder = PageDecoder(SLOTS * PAGE)
    for index, (good, raw_bytes) in enumerate(GOOD):
        data = bytearray(good)
        if index == which:
            for at, value in flips:
                # Half of the damage goes into the head and the columns: a page's bytes are only bytes.
                data[at % 40 if at & 1 else len(data) - 1 - at % 300 % len(data)] ^= value
            data = data[: len(data) - (cut_off if cut_off < 3 else 0)]
        try:
            raw = decoder.apply(decoder.prepare(bytes(data), raw_bytes, DECOMPRESSOR))
        except (RemoteProtocolError, LocalProtocolError):
            return  # the latter: its state sequence was damaged, the session would wait for its turn
        assert len(raw) == raw_bytes


def check_garbage(garbage: bytes, raw_bytes: int) -> None:
    decoder = PageDecoder(SLOTS * PAGE)
    try:
        prepared = decoder.prepare(garbage, raw_bytes, DECOMPRESSOR)
    except RemoteProtocolError:
        return
    assert len(prepared.raw) == raw_bytes


@settings(max_examples=60, deadline=None)
@given(*DAMAGE)
@example(0, [], 0)
def test_damaged_payloads_give_wrong_bytes_or_a_typed_error(
    which: int, flips: list[tuple[int, int]], cut_off: int
) -> None:
    check_damaged(which, flips, cut_off)


@settings(max_examples=80, deadline=None)
@given(*GARBAGE)
def test_garbage_gives_a_typed_error_or_bytes_of_the_announced_size(garbage: bytes, raw_bytes: int) -> None:
    check_garbage(garbage, raw_bytes)


@pytest.mark.long
@settings(max_examples=2000, deadline=None)
@given(*DAMAGE)
def test_thousands_of_damaged_payloads_do(which: int, flips: list[tuple[int, int]], cut_off: int) -> None:
    check_damaged(which, flips, cut_off)


@pytest.mark.long
@settings(max_examples=2000, deadline=None)
@given(*GARBAGE)
def test_thousands_of_pieces_of_garbage_do(garbage: bytes, raw_bytes: int) -> None:
    check_garbage(garbage, raw_bytes)
