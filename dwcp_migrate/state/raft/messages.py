"""Messages between replicas: a strict schema, framing, and which of them a role may send. No IO.

Nothing is unpickled, every size has a limit that is checked before memory is taken, and a message that its
sender's role does not allow ends the connection. Every message carries the sender's term, so that an answer that was
meant for an earlier term is told apart.

    frame    u32 length (big-endian, at most FRAME_BYTES_MAX) | msgpack of one Message, tagged by its type
    entry    index | term | kind (0 commands, 1 no-op, 2 membership) | payload

    PreVote, PreVoted     would you vote for me? Asked before the term is raised, so that a host that comes back from a
                          partition does not depose a leader that works (Ongaro's dissertation, 9.6)
    RequestVote, Vote     Raft's election
    Append, Ack           entries and heartbeats; Stale answers an Append of a term that is over
    Stale(term 0)         begins a connection and says how the sender's fleet began; release 0.1.0, which would end a
                          connection for a message of an unknown type, takes it for a Stale of no consequence
    RaftSnapshot              one part of the state, for a follower whose next entry is in the log no more
    Submit, Submitted     a follower hands commands to the leader
    TimeoutNow            the leader asks a follower to take over (dissertation, 3.10)
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.framing import FrameSplitter, frame_payload
from dwcp_migrate.state.fleet.commands import BATCH_BYTES_MAX
from dwcp_migrate.state.fleet.model import Name
from dwcp_migrate.units import KIB, MIB

APPEND_BYTES: Final = 256 * KIB
"""Entries of one Append together, the last one overshooting; larger than any entry, so that none is ever cut up."""

SNAPSHOT_PART_BYTES: Final = 256 * KIB

FRAME_BYTES_MAX: Final = 2 * MIB
"""`APPEND_BYTES`, one entry over, and 20 bytes around each of the smallest entries."""

ENTRIES_MAX: Final = 65536

REGULAR: Final = 0
NO_OP: Final = 1
MEMBERSHIP: Final = 2

_Index = Annotated[int, Meta(ge=0, le=2**62)]


class LogEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of the log."""

    index: _Index
    term: _Index
    kind: Annotated[int, Meta(ge=REGULAR, le=MEMBERSHIP)]
    payload: Annotated[bytes, Meta(max_length=BATCH_BYTES_MAX)]


class _Message(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    term: _Index


class PreVote(_Message, frozen=True, kw_only=True, tag=1):
    """Request: would the receiver vote for the sender in the term after `term`."""

    last_index: _Index
    last_term: _Index


class PreVoted(_Message, frozen=True, kw_only=True, tag=2):
    """Answer to `PreVote`: the sender would vote so; `asked` is the term in the question."""

    asked: _Index


class RequestVote(_Message, frozen=True, kw_only=True, tag=3):
    """Request for the receiver's vote."""

    last_index: _Index
    last_term: _Index


class Vote(_Message, frozen=True, kw_only=True, tag=4):
    """Answer to `RequestVote`: the vote is the candidate's."""


class Append(_Message, frozen=True, kw_only=True, tag=5):
    """Entries after `previous_index`; none is a heartbeat."""

    commit: _Index
    previous_index: _Index
    previous_term: _Index
    entries: Annotated[tuple[LogEntry, ...], Meta(max_length=ENTRIES_MAX)] = ()


class RaftSnapshot(_Message, frozen=True, kw_only=True, tag=6):
    """A part of the state; an empty last one ends it."""

    commit: _Index
    data: Annotated[bytes, Meta(max_length=SNAPSHOT_PART_BYTES)]
    first: bool
    last: bool


class Ack(_Message, frozen=True, kw_only=True, tag=7):
    """Answer to `Append`: everything before `next_index` is on disk (success), or has to be sent from there (reset)."""

    next_index: _Index
    reset: bool
    success: bool


class Stale(_Message, frozen=True, kw_only=True, tag=8):
    """Answer to a leader of an earlier term; with term 0 the first message of a connection.

    Attributes:
        origin: voters at the fleet's first start, in a connection's first message; empty where they are not known.
        voters: of now, as the sender knows them, in the same message and when they change: a host that does not know
            yet which others may lead it finds them by this.
    """

    origin: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    voters: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()


class Submit(_Message, frozen=True, kw_only=True, tag=9):
    """Request to append an entry for the sender."""

    request: _Index
    kind: Literal[0, 2]
    payload: Annotated[bytes, Meta(max_length=BATCH_BYTES_MAX)]


class Submitted(_Message, frozen=True, kw_only=True, tag=10):
    """Answer to `Submit`: the entry stands at `index`, not committed yet; or `error` is the library's reason."""

    request: _Index
    index: _Index = 0
    entry_term: _Index = 0
    error: Annotated[int, Meta(ge=0, le=255)] = 0


class TimeoutNow(_Message, frozen=True, kw_only=True, tag=11):
    """Order to hold an election at once."""


Message = (
    PreVote | PreVoted | RequestVote | Vote | Append | RaftSnapshot | Ack | Stale | Submit | Submitted | TimeoutNow
)

OBSERVER_MAY: Final = (Ack, Submit, Stale)
"""Messages of a host without a vote. A PreVote of one that does not know yet is answered with who has a vote; any other
message from it ends its connection."""


class RaftMembership(msgspec.Struct, frozen=True, array_like=True):
    """Payload of a membership entry."""

    verb: Literal["add", "rem"]
    name: Name


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_memberships = msgspec.msgpack.Decoder(RaftMembership)


def encode(message: Message) -> bytes:
    """Frame a message.

    Raises:
        LocalProtocolError: larger than `FRAME_BYTES_MAX`: a bug on this side.
    """
    return frame_payload(_encoder.encode(message), FRAME_BYTES_MAX)


def encode_membership(change: RaftMembership) -> bytes:
    """Write the payload of a membership entry."""
    return _encoder.encode(change)


def decode_membership(data: bytes) -> RaftMembership:
    """Read the payload of a membership entry.

    Raises:
        RemoteProtocolError: it is none.
    """
    try:
        change: RaftMembership = _memberships.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"membership entry: {error}") from error
    return change


def raft_frames() -> FrameSplitter[Message]:
    """Make the splitter of a connection's bytes into messages; it raises RemoteProtocolError for anything else."""
    return FrameSplitter(_message, FRAME_BYTES_MAX)


def _message(data: memoryview) -> Message:
    try:
        message: Message = _decoder.decode(data)
        if isinstance(message, Append):
            for entry in message.entries:
                if entry.kind == MEMBERSHIP:
                    decode_membership(entry.payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"message: {error}") from error
    return message


def as_record(entry: LogEntry) -> tuple[bytes, int, int]:
    """Turn an entry of the wire into one of the log."""
    return bytes([entry.kind]) + entry.payload, entry.index, entry.term


def as_entry(record: tuple[bytes, int, int]) -> LogEntry:
    """Turn an entry of the log into one of the wire."""
    command, index, term = record
    return LogEntry(index, term, command[0], command[1:])
