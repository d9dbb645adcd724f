"""Messages between replicas and clients: msgpack arrays, each field with a limit, nothing trusted in size.

Rule: a frame is decoded whole or refused. Its sender is the one that the channel proves (mutual TLS); only messages
that must convince a third party carry a signature. Content that is hashed or signed travels as the bytes that were
hashed or signed, so that nobody has to encode it the same way again.

    frame    u32 length, big-endian, at most FRAME_BYTES_MAX | msgpack [kind, field, ...]

    both, first                 Hello
    client -> primary           Request
    primary -> backups          PrePrepare
    all -> all                  Prepare, Commit, Checkpoint (signed), ReplicaStatus
    all -> client               Reply (signed where the client wants a certificate)
    all -> all, on suspicion    ViewChange (signed); new primary -> all: NewView (signed)
    for replicas that lag       StableCheckpoint, Decided, FetchBatch, BatchContent,
                                FetchState, StateManifest, StatePart, EpochLink
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.model.keys import (
    CLUSTER_BYTES,
    DIGEST_BYTES,
    MAC_BYTES,
    SIGNATURE_BYTES,
    compute_digest,
)
from dwcp_migrate.consensus.pbft.model.membership import Name
from dwcp_migrate.consensus.pbft.model.quorum import REPLICAS_MAX
from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.framing import FrameSplitter, frame_payload
from dwcp_migrate.units import KIB, MIB

VERSION: Final = 2
"""Members of 0.1.0 (version 1) sign no hello and begin no ticket: they and later ones do not decide together."""
VERSION_MIN: Final = 2
FRAME_BYTES_MAX: Final = 4 * MIB
"""A new view of the largest group with full windows takes half of it."""
OPERATION_BYTES_MAX: Final = 48 * KIB
"""A membership of 800 hosts; one of the largest still fits into the first part of a state."""
RESULT_BYTES_MAX: Final = 16 * KIB
REQUEST_BYTES_MAX: Final = OPERATION_BYTES_MAX + KIB
BATCH_REQUESTS_MAX: Final = 256
BATCH_BYTES_MAX: Final = 1 * MIB
VIEW_CHANGE_BYTES_MAX: Final = FRAME_BYTES_MAX // (REPLICAS_MAX + 1)
"""A new view carries one of each replica."""
WINDOW_MAX: Final = 256
"""Sequence numbers between the watermarks."""
DIGESTS_MAX: Final = 4
"""Different batches accepted for one sequence number that a replica reports; dropping older ones costs no safety."""
STATE_PART_BYTES: Final = 64 * KIB
STATE_PARTS_MAX: Final = 1024
JOURNAL_BYTES: Final = 16
"""Random name of a journal."""

Counter = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
OptionalSignature = Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]
BatchBytes = Annotated[bytes, Meta(max_length=BATCH_BYTES_MAX)]


Role = Literal["replica", "client"]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello", gc=False):
    """First on every channel, both ways.

    Attributes:
        version: of this protocol.
        cluster: that the sender means.
        role: a host may be replica and client on channels of their own.
        highest: number of the receiver's last request that was executed here: one whose clock went back goes on there.
        journal: random name of the sender's journal; empty for a client.
        signature: by the sender's key in the membership; see `greeting`.
    """

    version: Counter
    cluster: Annotated[bytes, Meta(min_length=CLUSTER_BYTES, max_length=CLUSTER_BYTES)]
    role: Role
    highest: Counter = 0
    journal: Annotated[bytes, Meta(max_length=JOURNAL_BYTES)] = b""
    signature: OptionalSignature = b""


class RequestBody(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A client's request.

    Attributes:
        client: its name.
        epoch: membership that its authenticators are made for.
        number: chosen by the client, used once; at most `CLIENT_WINDOW` behind its highest.
        operation: for the application, or an encoded `Membership`.
        certify: the client wants signatures that it can show to others.
        reconfigure: the operation is a new membership.
    """

    client: Name
    epoch: Counter
    number: Counter
    operation: Annotated[bytes, Meta(max_length=OPERATION_BYTES_MAX)]
    certify: bool = False
    reconfigure: bool = False


class Request(msgspec.Struct, frozen=True, array_like=True, tag="request", gc=False):
    """A request with its authentication.

    Attributes:
        body: encoded `RequestBody`.
        macs: one authenticator of `MAC_BYTES` a replica, in their order; or empty.
        signature: by the client; or empty. Sent again, a request carries it: every replica judges it alike.
    """

    body: Annotated[bytes, Meta(max_length=REQUEST_BYTES_MAX)]
    macs: Annotated[bytes, Meta(max_length=MAC_BYTES * REPLICAS_MAX)] = b""
    signature: OptionalSignature = b""


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The requests that one sequence number decides.

    Attributes:
        time_ms: the primary's wall clock, checked by the backups: the application's only clock.
    """

    time_ms: Counter
    requests: Annotated[tuple[Request, ...], Meta(max_length=BATCH_REQUESTS_MAX)]


class PrePrepare(msgspec.Struct, frozen=True, array_like=True, tag="pre-prepare", gc=False):
    """The primary proposes an encoded `Batch`."""

    epoch: Counter
    view: Counter
    sequence: Counter
    batch: BatchBytes


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag="prepare", gc=False):
    """A backup accepted the proposal of this digest, and no other."""

    epoch: Counter
    view: Counter
    sequence: Counter
    digest: Digest


class Commit(msgspec.Struct, frozen=True, array_like=True, tag="commit", gc=False):
    """A replica knows that a quorum accepted it, and wrote that down."""

    epoch: Counter
    view: Counter
    sequence: Counter
    digest: Digest


class Reply(msgspec.Struct, frozen=True, array_like=True, tag="reply", gc=False):
    """Result of a request.

    Attributes:
        epoch: of the replica that answers; a request of an earlier one is answered again by its successors.
        signature: over `certificate.statement`, where the request asked for it; else empty.
    """

    epoch: Counter
    view: Counter
    number: Counter
    sequence: Counter
    result: Annotated[bytes, Meta(max_length=RESULT_BYTES_MAX)]
    signature: OptionalSignature = b""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, tag="checkpoint", gc=False):
    """The state after `sequence` has this digest (`snapshot.manifest_digest`)."""

    epoch: Counter
    sequence: Counter
    digest: Digest
    signature: Signature


class StableProof(msgspec.Struct, frozen=True, array_like=True):
    """A quorum signed the same checkpoint. Sequence 0 is the empty state and needs no proof."""

    epoch: Counter
    sequence: Counter
    digest: Annotated[bytes, Meta(max_length=DIGEST_BYTES)] = b""
    signatures: Annotated[dict[Name, Signature], Meta(max_length=REPLICAS_MAX)] = {}


class StableCheckpoint(msgspec.Struct, frozen=True, array_like=True, tag="stable", gc=False):
    """A proof for a replica that executed that far and did not get enough votes."""

    proof: StableProof


class Prepared(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last view in which a sequence number was prepared here, and what (set P of TOCS 2002, 4.4)."""

    sequence: Counter
    view: Counter
    digest: Digest


class ViewEvidence(msgspec.Struct, frozen=True, array_like=True):
    """Batches accepted here for a sequence number, with the last view of each (set Q of TOCS 2002, 4.4)."""

    sequence: Counter
    views: Annotated[dict[Digest, Counter], Meta(max_length=DIGESTS_MAX)]


class ViewChangeBody(msgspec.Struct, frozen=True, array_like=True):
    """A replica's knowledge when it leaves a view."""

    epoch: Counter
    view: Counter
    replica: Name
    stable: StableProof
    prepared: Annotated[tuple[Prepared, ...], Meta(max_length=WINDOW_MAX)]
    seen: Annotated[tuple[ViewEvidence, ...], Meta(max_length=WINDOW_MAX)]


class ViewChange(msgspec.Struct, frozen=True, array_like=True, tag="view-change", gc=False):
    """A signed `ViewChangeBody`: convinces third parties, so that a new view can be proven."""

    body: Annotated[bytes, Meta(max_length=VIEW_CHANGE_BYTES_MAX)]
    signature: Signature


class NewView(msgspec.Struct, frozen=True, array_like=True, tag="new-view"):
    """A quorum's view changes. Each replica works out alone what follows from them (`new_view.select`)."""

    epoch: Counter
    view: Counter
    changes: Annotated[tuple[ViewChange, ...], Meta(max_length=REPLICAS_MAX)]
    signature: Signature


class ReplicaStatus(msgspec.Struct, frozen=True, array_like=True, tag="status", gc=False):
    """A replica's progress; replicas that are ahead answer with what it lacks."""

    epoch: Counter
    view: Counter
    active: bool
    executed: Counter
    stable: Counter


class Decided(msgspec.Struct, frozen=True, array_like=True, tag="decided", gc=False):
    """The sender executed this batch there. Believed when `weak` replicas say the same."""

    sequence: Counter
    batch: BatchBytes


class FetchBatch(msgspec.Struct, frozen=True, array_like=True, tag="fetch-batch", gc=False):
    """The new view carries on a batch that the sender never had."""

    digest: Digest


class BatchContent(msgspec.Struct, frozen=True, array_like=True, tag="batch", gc=False):
    """The batch; its digest proves it."""

    batch: BatchBytes


class FetchState(msgspec.Struct, frozen=True, array_like=True, tag="fetch-state", gc=False):
    """The sender lags behind the log: it wants the manifest (`index` -1), or a part of the state at `sequence`."""

    sequence: Counter
    index: Annotated[int, Meta(ge=-1, lt=STATE_PARTS_MAX)]


class StateManifest(msgspec.Struct, frozen=True, array_like=True, tag="state-manifest"):
    """The proof of the last stable checkpoint, and the digests of the parts of its state."""

    proof: StableProof
    parts: Annotated[tuple[Digest, ...], Meta(max_length=STATE_PARTS_MAX)]


class EpochLink(msgspec.Struct, frozen=True, array_like=True, tag="epoch-link"):
    """The members of one epoch signed their successors: the header of the state at which the next epoch began."""

    proof: StableProof
    parts: Annotated[tuple[Digest, ...], Meta(min_length=1, max_length=STATE_PARTS_MAX)]
    header: Annotated[bytes, Meta(max_length=STATE_PART_BYTES)]


class StatePart(msgspec.Struct, frozen=True, array_like=True, tag="state-part", gc=False):
    """A part of the state at `sequence`; its digest in the manifest proves it."""

    sequence: Counter
    index: Annotated[int, Meta(ge=0, lt=STATE_PARTS_MAX)]
    data: Annotated[bytes, Meta(max_length=STATE_PART_BYTES)]


Message = (
    Hello
    | Request
    | PrePrepare
    | Prepare
    | Commit
    | Reply
    | Checkpoint
    | StableCheckpoint
    | ViewChange
    | NewView
    | ReplicaStatus
    | Decided
    | FetchBatch
    | BatchContent
    | FetchState
    | StateManifest
    | StatePart
    | EpochLink
)

_encoder = msgspec.msgpack.Encoder()
_message = msgspec.msgpack.Decoder(Message)
_batch = msgspec.msgpack.Decoder(Batch)
_request_body = msgspec.msgpack.Decoder(RequestBody)
_view_change_body = msgspec.msgpack.Decoder(ViewChangeBody)
BROKEN: Final = (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError)
"""Exceptions of msgspec on bytes that do not fit a schema."""

encode_body = _encoder.encode
"""Encode a `RequestBody`, `Batch` or `ViewChangeBody`: the bytes that are hashed or signed."""

NULL_BATCH: Final = _encoder.encode(Batch(0, ()))
"""Fills a sequence number that a view change found empty."""
NULL_DIGEST: Final = compute_digest(NULL_BATCH)


def encode_frame(message: Message) -> bytes:
    """Serialise a message with its length.

    Raises:
        LocalProtocolError: past `FRAME_BYTES_MAX`.
    """
    return frame_payload(_encoder.encode(message), FRAME_BYTES_MAX)


def decode_message(payload: bytes | memoryview) -> Message:
    """Read a frame's payload.

    Raises:
        RemoteProtocolError: not a message, a wrong type, or a field past its limit.
    """
    try:
        message: Message = _message.decode(payload)
    except BROKEN as error:
        raise RemoteProtocolError(f"not a message: {error}") from error
    return message


def decode_batch(data: bytes) -> Batch | None:
    """Read an encoded batch; None if it is none: its sender is at fault, nobody else is told."""
    try:
        return _batch.decode(data)
    except BROKEN:
        return None


def decode_request_body(data: bytes) -> RequestBody | None:
    """Read an encoded request body; None if it is none."""
    try:
        return _request_body.decode(data)
    except BROKEN:
        return None


def decode_view_change_body(data: bytes) -> ViewChangeBody | None:
    """Read an encoded view change; None if it is none."""
    try:
        return _view_change_body.decode(data)
    except BROKEN:
        return None


def pbft_frames() -> FrameSplitter[Message]:
    """Make the splitter that cuts a channel's bytes into messages; it raises what `decode_message` raises, too."""
    return FrameSplitter(decode_message, FRAME_BYTES_MAX)
