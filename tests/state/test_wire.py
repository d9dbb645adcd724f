"""Messages between replicas: framing, schema, limits."""

import pickle
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.state import wire
from dwcp_migrate.state.fleet.commands import BATCH_BYTES_MAX

MESSAGES: tuple[wire.Message, ...] = (
    wire.PreVote(term=1, last_index=2, last_term=1),
    wire.PreVoted(term=1, asked=1),
    wire.RequestVote(term=2, last_index=2, last_term=1),
    wire.Vote(term=2),
    wire.Append(term=2, commit=1, previous_index=1, previous_term=0, entries=(wire.Entry(2, 2, wire.REGULAR, b"x"),)),
    wire.Snapshot(term=2, commit=1, data=b"s", first=True, last=False),
    wire.Ack(term=2, next_index=3, reset=False, success=True),
    wire.Stale(term=3),
    wire.Submit(term=2, request=9, kind=0, payload=b"x"),
    wire.Submitted(term=2, request=9, index=3, entry_term=2),
    wire.TimeoutNow(term=2),
)


def test_messages_come_back_whole_byte_by_byte_and_with_more_behind() -> None:
    data = b"".join(wire.encode(message) for message in MESSAGES)
    assert tuple(wire.Frames().feed(data)) == MESSAGES
    frames = wire.Frames()
    assert tuple(message for byte in data for message in frames.feed(bytes([byte]))) == MESSAGES


def test_a_frame_that_announces_too_much_is_refused_before_it_comes() -> None:
    frames = wire.Frames()
    assert frames.feed(struct.pack(">I", wire.FRAME_BYTES_MAX)) == []
    with pytest.raises(LimitExceededError):
        wire.Frames().feed(struct.pack(">I", wire.FRAME_BYTES_MAX + 1))


def test_the_fullest_append_fits_a_frame() -> None:
    smallest = wire.Entry(2**62, 2**62, wire.REGULAR, b"1234")
    entries = (smallest,) * (wire.APPEND_BYTES // 5) + (wire.Entry(1, 1, 0, bytes(BATCH_BYTES_MAX)),)
    message = wire.Append(term=1, commit=1, previous_index=1, previous_term=1, entries=entries)
    assert wire.Frames().feed(wire.encode(message)) == [message]
    with pytest.raises(LocalProtocolError):
        wire.encode(wire.Append(term=1, commit=1, previous_index=1, previous_term=1, entries=entries * 2))


@pytest.mark.parametrize(
    "message",
    [
        wire.Append(term=1, commit=1, previous_index=1, previous_term=1, entries=(wire.Entry(1, 1, 3, b""),)),
        wire.Append(
            term=1, commit=1, previous_index=1, previous_term=1, entries=(wire.Entry(1, 1, wire.MEMBERSHIP, b"pickle"),)
        ),
        wire.Append(
            term=1,
            commit=1,
            previous_index=1,
            previous_term=1,
            entries=(wire.Entry(1, 1, 0, bytes(BATCH_BYTES_MAX + 1)),),
        ),
        wire.Snapshot(term=1, commit=1, data=bytes(wire.SNAPSHOT_PART_BYTES + 1), first=True, last=False),
        wire.Vote(term=-1),
    ],
)
def test_what_breaks_the_schema_is_refused(message: wire.Message) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.Frames().feed(wire.encode(message))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_garbage(protocol: int) -> None:
    data = pickle.dumps(Evil(), protocol)
    with pytest.raises(RemoteProtocolError):
        wire.Frames().feed(struct.pack(">I", len(data)) + data)


@given(st.binary(max_size=100))
def test_garbage_is_refused_with_a_typed_error(data: bytes) -> None:
    frames = wire.Frames()
    try:
        frames.feed(struct.pack(">I", len(data)) + data)
    except RemoteProtocolError:
        return


def test_membership_entries_have_a_schema() -> None:
    change = wire.Membership("add", "host.example.net")
    assert wire.decode_membership(wire.encode_membership(change)) == change
    with pytest.raises(RemoteProtocolError):
        wire.decode_membership(msgspec.msgpack.encode(["become-root", "host"]))
