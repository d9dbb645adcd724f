"""Length-prefixed frames: any cut between bytes, the limit at it and one past it, and no memory that is kept."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.framing import FrameSplitter, frame_payload

LIMIT = 64


def splitter() -> FrameSplitter[bytes]:
    return FrameSplitter(bytes, LIMIT)


@given(st.lists(st.binary(max_size=LIMIT), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_messages_are_whole_however_the_stream_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame_payload(message, LIMIT) for message in messages)
    ends = [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    frames, found, begin = splitter(), [], 0
    for end in ends:
        found += frames.feed(memoryview(stream)[begin:end])
        begin = end
    assert found == messages


def test_frame_of_the_limit_passes_and_one_past_it_is_refused_before_its_payload() -> None:
    assert splitter().feed(frame_payload(bytes(LIMIT), LIMIT)) == [bytes(LIMIT)]
    with pytest.raises(LimitExceededError):
        splitter().feed(struct.pack(">I", LIMIT + 1))
    with pytest.raises(LocalProtocolError):
        frame_payload(bytes(LIMIT + 1), LIMIT)


def test_lent_memory_may_be_used_again_after_a_feed() -> None:
    frames, buffer = splitter(), bytearray(frame_payload(b"first", LIMIT) + frame_payload(b"second", LIMIT)[:7])
    assert frames.feed(memoryview(buffer)) == [b"first"]
    buffer[:] = bytes(len(buffer))
    assert frames.feed(frame_payload(b"second", LIMIT)[7:]) == [b"second"]


def test_what_the_decoder_refuses_reaches_the_caller() -> None:
    def refuse(_: memoryview) -> bytes:
        raise RemoteProtocolError("no message")

    frames = FrameSplitter(refuse, LIMIT)
    with pytest.raises(RemoteProtocolError):
        frames.feed(frame_payload(b"x", LIMIT))
