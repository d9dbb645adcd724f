"""Messages between replicas: framing, schema, limits."""

import pickle
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.state.fleet.commands import BATCH_BYTES_MAX
from dwcp_migrate.state.raft import messages

MESSAGES: tuple[messages.Message, ...] = (
    messages.PreVote(term=1, last_index=2, last_term=1),
    messages.PreVoted(term=1, asked=1),
    messages.RequestVote(term=2, last_index=2, last_term=1),
    messages.Vote(term=2),
    messages.Append(
        term=2, commit=1, previous_index=1, previous_term=0, entries=(messages.LogEntry(2, 2, messages.REGULAR, b"x"),)
    ),
    messages.RaftSnapshot(term=2, commit=1, data=b"s", first=True, last=False),
    messages.Ack(term=2, next_index=3, reset=False, success=True),
    messages.Stale(term=3),
    messages.Submit(term=2, request=9, kind=0, payload=b"x"),
    messages.Submitted(term=2, request=9, index=3, entry_term=2),
    messages.TimeoutNow(term=2),
)


def test_messages_come_back_whole_byte_by_byte_and_with_more_behind() -> None:
    data = b"".join(messages.encode(message) for message in MESSAGES)
    assert tuple(messages.raft_frames().feed(data)) == MESSAGES
    frames = messages.raft_frames()
    assert tuple(message for byte in data for message in frames.feed(bytes([byte]))) == MESSAGES


def test_a_frame_that_announces_too_much_is_refused_before_it_comes() -> None:
    frames = messages.raft_frames()
    assert frames.feed(struct.pack(">I", messages.FRAME_BYTES_MAX)) == []
    with pytest.raises(LimitExceededError):
        messages.raft_frames().feed(struct.pack(">I", messages.FRAME_BYTES_MAX + 1))


def test_the_fullest_append_fits_a_frame() -> None:
    smallest = messages.LogEntry(2**62, 2**62, messages.REGULAR, b"1234")
    entries = (smallest,) * (messages.APPEND_BYTES // 5) + (messages.LogEntry(1, 1, 0, bytes(BATCH_BYTES_MAX)),)
    message = messages.Append(term=1, commit=1, previous_index=1, previous_term=1, entries=entries)
    assert messages.raft_frames().feed(messages.encode(message)) == [message]
    with pytest.raises(LocalProtocolError):
        messages.encode(messages.Append(term=1, commit=1, previous_index=1, previous_term=1, entries=entries * 2))


@pytest.mark.parametrize(
    "message",
    [
        messages.Append(
            term=1, commit=1, previous_index=1, previous_term=1, entries=(messages.LogEntry(1, 1, 3, b""),)
        ),
        messages.Append(
            term=1,
            commit=1,
            previous_index=1,
            previous_term=1,
            entries=(messages.LogEntry(1, 1, messages.MEMBERSHIP, b"pickle"),),
        ),
        messages.Append(
            term=1,
            commit=1,
            previous_index=1,
            previous_term=1,
            entries=(messages.LogEntry(1, 1, 0, bytes(BATCH_BYTES_MAX + 1)),),
        ),
        messages.RaftSnapshot(term=1, commit=1, data=bytes(messages.SNAPSHOT_PART_BYTES + 1), first=True, last=False),
        messages.Vote(term=-1),
    ],
)
def test_what_breaks_the_schema_is_refused(message: messages.Message) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.raft_frames().feed(messages.encode(message))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_garbage(protocol: int) -> None:
    data = pickle.dumps(Evil(), protocol)
    with pytest.raises(RemoteProtocolError):
        messages.raft_frames().feed(struct.pack(">I", len(data)) + data)


@given(st.binary(max_size=100))
def test_garbage_is_refused_with_a_typed_error(data: bytes) -> None:
    frames = messages.raft_frames()
    try:
        frames.feed(struct.pack(">I", len(data)) + data)
    except RemoteProtocolError:
        return


def test_membership_entries_have_a_schema() -> None:
    change = messages.RaftMembership("add", "host.example.net")
    assert messages.decode_membership(messages.encode_membership(change)) == change
    with pytest.raises(RemoteProtocolError):
        messages.decode_membership(msgspec.msgpack.encode(["become-root", "host"]))
