"""Segments in place: what the encoder sends so, and what the decoder refuses."""

import numpy as np
import pytest

from dwcp_migrate.delta import Codec, Coding, Compressor, Decompressor, PageDecoder
from dwcp_migrate.delta.in_place import LISTED_ZERO_MAX, SPAN
from dwcp_migrate.delta.payload import (
    DELTA,
    DUPLICATE,
    IN_PLACE,
    LOCAL,
    PAGES,
    SAME,
    SPANS_MAX,
    STATE,
    ZERO,
    Head,
    pack_column,
    unpack,
)
from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.qemu import StreamParser
from tests.delta.streams import PAGE, Pair, noise, stream

SLOTS = 8
RAW = 3 * PAGE


def payload(  # noqa: PLR0913 - one for each column of the format
    *,
    spans: list[tuple[int, int, int, int]] | None = None,
    at: list[int] | None = None,
    op: list[int] | None = None,
    ref: list[int] | None = None,
    flags: int = STATE,
    missing: int = 0,
    surplus: bytes = b"",
) -> bytes:
    """A segment of `RAW` bytes, all of them 1 but its holes."""
    spans, at, op = spans or [], at or [], op or []
    dense = b"\1" * (RAW - len(at) * PAGE - missing)
    columns = pack_column(np.array(at, np.uint32)), bytes(op), pack_column(np.array(ref or [], np.uint32))
    body = b"".join((dense, *(SPAN.pack(*span) for span in spans), *columns, surplus))
    return Head(IN_PLACE, 0, flags, len(body), runs=len(spans), pages=len(at)).pack() + body


def decode(*payloads: bytes) -> bytes:
    decoder = PageDecoder(SLOTS * PAGE)
    raw = memoryview(b"")
    for turn, data in enumerate(payloads):
        own_turn = data[:8] + turn.to_bytes(8, "little") + data[16:]
        raw = decoder.apply(decoder.prepare(own_turn, RAW, Decompressor()))
    return bytes(raw)


def form_of(pair: Pair, data: bytes) -> int:
    """The form in which a stream's one segment travels."""
    cut = StreamParser(pair.blocks).feed(data, flush=True).cuts[0]
    job = pair.encoder.classify(memoryview(data), cut)
    encoded = job.encode(Coding(Codec.ZSTD, 1), Compressor())
    raw = pair.decoder.apply(pair.decoder.prepare(encoded, job.raw_bytes, Decompressor()))
    assert raw == data
    return unpack(memoryview(encoded), job.raw_bytes)[0].form


def test_holes_are_filled_from_the_cache_from_the_segment_and_with_zeros() -> None:
    first = payload(spans=[(0, PAGE, 2, 3)])
    assert decode(first) == b"\1" * RAW
    second = payload(at=[0, PAGE, 2 * PAGE], op=[ZERO, DUPLICATE, LOCAL], ref=[4, PAGE])
    assert decode(first, second) == bytes(PAGE) + b"\1" * 2 * PAGE
    assert decode(first, payload(at=[PAGE], op=[SAME], ref=[3])) == b"\1" * RAW


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (payload(missing=1), "cut short"),
        (payload(surplus=b"x"), "too many"),
        (payload(spans=[(2 * PAGE + 1, PAGE, 1, 0)]), "outside"),
        (payload(spans=[(0, PAGE, 4, 0)]), "outside"),
        (payload(spans=[(0, 2**32 - 1, 2, 0)]), "outside"),
        (payload(spans=[(0, PAGE - 1, 2, 0)]), "outside"),
        (payload(spans=[(0, PAGE, 0, 0)]), "outside"),
        (payload(spans=[(0, PAGE, 2, SLOTS - 1)]), "slot beyond"),
        (payload(spans=[(0, PAGE, 1, 0)], flags=0), "out of order"),
        (payload(at=[0], op=[DUPLICATE], ref=[0], flags=0), "out of order"),
        (payload(at=[0], op=[DUPLICATE], ref=[0]), "empty slot"),
        (payload(at=[0], op=[DUPLICATE], ref=[SLOTS]), "slot beyond"),
        (payload(at=[0], op=[DUPLICATE], ref=[]), "cut short"),
        (payload(at=[0], op=[LOCAL], ref=[2 * PAGE + 1]), "outside"),
        (payload(at=[0], op=[DELTA], ref=[0]), "unknown form"),
        (payload(at=[0], op=[6], ref=[0]), "unknown form"),
        (payload(at=[2 * PAGE + 1], op=[ZERO]), "overlap"),
        (payload(at=[0, PAGE - 1], op=[ZERO, ZERO]), "overlap"),
        (payload(at=[PAGE, 0], op=[ZERO, ZERO]), "overlap"),
        (Head(IN_PLACE, 0, 0, RAW, literal_bytes=1).pack() + b"\1" * RAW, "cannot have"),
        (Head(IN_PLACE, 0, 0, RAW, pages=1, body_pages=1).pack() + b"\1" * RAW, "cannot have"),
    ],
)
def test_a_segment_in_place_that_breaks_a_rule_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        decode(data)


def test_spans_at_the_limit_pass_and_one_past_it_is_refused() -> None:
    assert decode(payload(spans=[(0, PAGE, 1, 0)] * SPANS_MAX)) == b"\1" * RAW
    with pytest.raises(RemoteProtocolError, match="cannot have"):
        decode(payload(spans=[(0, PAGE, 1, 0)] * (SPANS_MAX + 1)))


def test_a_first_pass_with_a_duplicate_in_it_travels_in_place() -> None:
    pair = Pair(1 << 20, Coding(Codec.ZSTD, 1))
    assert form_of(pair, stream((0, noise(0)), (1, noise(1)), (2, noise(0)), (3, b"\0"), (4, noise(4)))) == IN_PLACE
    assert form_of(pair, stream((5, noise(5)), (6, noise(1)), (7, noise(7)), (9, noise(9)))) == IN_PLACE


def test_changes_and_segments_of_mostly_known_pages_travel_apart() -> None:
    pair = Pair(1 << 20, Coding(Codec.ZSTD, 1))
    assert form_of(pair, stream((0, noise(0)), (1, noise(0)))) == PAGES
    assert form_of(pair, stream((0, noise(0)[:-1] + b"!"), (1, noise(1)), (2, noise(2)), (3, noise(3)))) == PAGES


def test_listed_zero_pages_at_the_limit_travel_in_place_and_one_more_makes_runs() -> None:
    pair = Pair(1 << 20, Coding(Codec.ZSTD, 1))
    zeros = [(number, b"\0") for number in range(10, 10 + LISTED_ZERO_MAX)]
    assert form_of(pair, stream((0, noise(0)), *zeros)) == IN_PLACE
    assert form_of(pair, stream((1, noise(1)), *zeros, (9, b"\0"))) == PAGES


def test_irregular_pages_travel_apart_past_the_limit_of_spans() -> None:
    for pairs, form in ((SPANS_MAX, IN_PLACE), (SPANS_MAX + 1, PAGES)):
        pages = ((number, b"\0" if number % 3 == 2 else noise(number)) for number in range(3 * pairs))
        assert form_of(Pair(1 << 20, Coding(Codec.ZSTD, 1)), stream(*pages)) == form
