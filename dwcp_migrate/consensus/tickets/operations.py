"""Operations on migration tickets, and their results: the requests of hosts, and the group's answers.

Their effect on the state: `machine.py`.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.model.membership import NAME_BYTES_MAX, Name
from dwcp_migrate.consensus.pbft.model.messages import BROKEN, Counter, encode_body

NOBODY: Final = ""
"""Owner of a domain that was released."""
LIFETIME_MS_MAX: Final = 7 * 24 * 3600 * 1000
"""A ticket may not outlive a week: the longest migration of a large guest over a thin link takes hours."""
NO_SLOT: Final = 256
"""Slot of a ticket without one: the destination's own consent limits what it takes in."""

Uuid = Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class ProposeTicket(msgspec.Struct, frozen=True, array_like=True, tag="propose"):
    """The client runs this domain and wants to move it.

    Attributes:
        lifetime_ms: from the group's now.
    """

    domain: Uuid
    destination: Name
    lifetime_ms: Annotated[int, Meta(gt=0, le=LIFETIME_MS_MAX)]


class BeginTicket(msgspec.Struct, frozen=True, array_like=True, tag="begin"):
    """The client is the destination, and is about to let the migration in."""

    domain: Uuid
    token: Counter


class ResumeTicket(msgspec.Struct, frozen=True, array_like=True, tag="resume"):
    """The client is the destination, and the guest runs there."""

    domain: Uuid
    token: Counter


class FailTicket(msgspec.Struct, frozen=True, array_like=True, tag="fail"):
    """The migration did not happen; the domain stays with the source."""

    domain: Uuid
    token: Counter


class Forget(msgspec.Struct, frozen=True, array_like=True, tag="forget"):
    """The client's domain runs there no more, and the group did not decide the move."""

    domain: Uuid


class Assign(msgspec.Struct, frozen=True, array_like=True, tag="assign"):
    """An operator says who runs a domain; `NOBODY` forgets it."""

    domain: Uuid
    owner: Annotated[str, Meta(max_length=NAME_BYTES_MAX)]


# --- the operations of release 0.1.0


class Register(msgspec.Struct, frozen=True, array_like=True, tag="register"):
    """The client runs this domain."""

    domain: Uuid


class Issue(msgspec.Struct, frozen=True, array_like=True, tag="issue"):
    """The client wants to move its domain.

    Attributes:
        destination: host that is to take it.
        slot: of the destination, from 0; one migration each.
        generation: of the domain, as the client knows it.
        lifetime_ms: from the group's now.
    """

    domain: Uuid
    destination: Name
    slot: Annotated[int, Meta(ge=0, le=255)]
    generation: Counter
    lifetime_ms: Annotated[int, Meta(gt=0, le=LIFETIME_MS_MAX)]


class Consume(msgspec.Struct, frozen=True, array_like=True, tag="consume"):
    """The client is the destination, and the guest is about to run there."""

    domain: Uuid
    token: Counter


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """The migration did not happen."""

    domain: Uuid
    token: Counter


class Release(msgspec.Struct, frozen=True, array_like=True, tag="release"):
    """The client's domain runs there no more, and the group did not decide the move: whoever runs it may register."""

    domain: Uuid


class Ticket(msgspec.Struct, frozen=True, array_like=True, tag="ticket"):
    """Permission for one migration; its certificate is what the destination's agent verifies.

    Attributes:
        slot: of the destination, for a ticket of `Issue`.
        token: counts the group's tickets, from 1.
        generation: of the domain while it is on its way.
        expires_ms: on the group's clock, Unix milliseconds.
    """

    domain: Uuid
    source: Name
    destination: Name
    slot: int
    generation: Counter
    token: Counter
    expires_ms: Counter


class Ownership(msgspec.Struct, frozen=True, array_like=True, tag="ownership"):
    """Owner of a domain after the operation; may be `NOBODY`."""

    domain: Uuid
    owner: Annotated[str, Meta(max_length=NAME_BYTES_MAX)]
    generation: Counter


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """Nothing changed.

    Attributes:
        code: one of `refusals.BY_PBFT_GROUP`.
        token: of the ticket that stands in the way; 0 if none does.
    """

    code: str
    token: Counter = 0


Operation = (
    ProposeTicket
    | BeginTicket
    | ResumeTicket
    | FailTicket
    | Forget
    | Assign
    | Register
    | Issue
    | Consume
    | Cancel
    | Release
)
Result = Ticket | Ownership | Refusal

_operation = msgspec.msgpack.Decoder(Operation)
_result = msgspec.msgpack.Decoder(Result)


def encode_operation(operation: Operation) -> bytes:
    """Serialise an operation."""
    return encode_body(operation)


def decode_operation(data: bytes) -> Operation | None:
    """Read an operation; None if it is none: the client that sent it is at fault, and is told so."""
    try:
        operation: Operation = _operation.decode(data)
    except BROKEN:
        return None
    return operation


def decode_result(data: bytes) -> Result:
    """Read the result of an operation.

    Raises:
        msgspec.ValidationError: it is none: the group runs another application.
    """
    result: Result = _result.decode(data)
    return result
