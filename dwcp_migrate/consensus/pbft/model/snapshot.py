"""The replicated state at a checkpoint, cut into parts that are each checked on their own.

Rule: the digest that replicas sign covers the list of the parts' digests, so that a replica that fetches the state
checks each part as it comes, and knows at once which sender lied. The first part is the header with the membership: it
alone, with the list, proves the members of the next epoch. The others are `STATE_PART_BYTES` of the body, at most
`STATE_PARTS_MAX` in all.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.model.client_table import ClientTable, Dump
from dwcp_migrate.consensus.pbft.model.keys import compute_digest
from dwcp_migrate.consensus.pbft.model.membership import Membership
from dwcp_migrate.consensus.pbft.model.messages import STATE_PART_BYTES, STATE_PARTS_MAX, Counter, encode_body

STATE_BYTES_MAX: Final = STATE_PART_BYTES * STATE_PARTS_MAX


class Header(msgspec.Struct, frozen=True, array_like=True):
    """Header of a snapshot.

    Attributes:
        sequence: last one executed.
        time_ms: the application's clock.
        membership: that holds for the next sequence number.
        since: sequence number of the operation that began its epoch; 0 for the first.
    """

    sequence: Counter
    time_ms: Counter
    membership: Membership
    since: Counter


class Body(msgspec.Struct, frozen=True, array_like=True):
    """Everything else that execution changes.

    Attributes:
        clients: `ClientTable.dump`.
        application: its own snapshot.
    """

    clients: Dump
    application: bytes


class _Whole(msgspec.Struct, frozen=True, array_like=True):
    header: Annotated[bytes, Meta(max_length=STATE_PART_BYTES)]
    body: Annotated[bytes, Meta(max_length=STATE_BYTES_MAX)]


_header = msgspec.msgpack.Decoder(Header)
_body = msgspec.msgpack.Decoder(Body)
_whole = msgspec.msgpack.Decoder(_Whole)


class GroupSnapshot:
    """An encoded state with its manifest.

    Raises:
        ValueError: the header is larger than a part, or all of it than `STATE_BYTES_MAX`.
    """

    def __init__(self, header: bytes, body: bytes) -> None:
        if len(header) > STATE_PART_BYTES or len(header) + len(body) > STATE_BYTES_MAX - STATE_PART_BYTES:
            raise ValueError(f"state of {len(header)} + {len(body)} bytes, at most {STATE_BYTES_MAX}")
        self.header = header
        self.body = body
        count = 1 + -(-len(body) // STATE_PART_BYTES)
        self.parts = tuple(compute_digest(self.part(index)) for index in range(count))
        self.digest = manifest_digest(self.parts)

    def part(self, index: int) -> bytes:
        """Cut one part out; empty past the end."""
        if index == 0:
            return self.header
        return self.body[(index - 1) * STATE_PART_BYTES : index * STATE_PART_BYTES]

    def encode(self) -> bytes:
        """Serialise both, for the journal."""
        return encode_body(_Whole(self.header, self.body))


def take_snapshot(header: Header, clients: ClientTable, application: bytes) -> GroupSnapshot:
    """Encode the state: the same bytes on all replicas that executed the same.

    Args:
        header: place, clock and membership of the state.
        clients: results that repeated requests are answered with.
        application: its own snapshot.

    Raises:
        ValueError: past a limit of `GroupSnapshot`.
    """
    return GroupSnapshot(encode_body(header), encode_body(Body(clients.dump(), application)))


def decode_snapshot(data: bytes) -> GroupSnapshot:
    """Read the bytes that `GroupSnapshot.encode` wrote.

    Raises:
        msgspec.ValidationError: it is none.
    """
    whole = _whole.decode(data)
    return GroupSnapshot(whole.header, whole.body)


def manifest_digest(parts: tuple[bytes, ...]) -> bytes:
    """Hash the list of the parts' digests: the digest that a checkpoint signs."""
    return compute_digest(b"".join(parts))


def read_header(data: bytes) -> Header:
    """Decode a header that was proven.

    Raises:
        msgspec.ValidationError: it is none, though a quorum signed it.
    """
    return _header.decode(data)


def read_body(data: bytes) -> Body:
    """Decode a body that was proven.

    Raises:
        msgspec.ValidationError: it is none, though a quorum signed it.
    """
    return _body.decode(data)
