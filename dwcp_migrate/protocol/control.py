"""Control protocol between two agents: messages, framing, version policy. No IO.

The rule: an unknown request is answered with `Refused("unknown-request")` and has no other effect, so that a newer
agent may ask an older one; a frame that breaks the framing ends the connection.

    connection   TCP to the link port, preamble with the all-zero session id, TLS 1.3 both ways, then frames
    frame        u32 length (big-endian, at most FRAME_BYTES_MAX) | msgpack of Envelope
    Envelope     id (chosen by the asker, repeated in the answer) | kind | body

    source agent                                    destination agent
    Open(versions, session_id, token, address, port ...)  ->  Opened(version, cache_bytes ...) | Refused(code)
    Close(session_id, result ...)                         ->  Closed(result) | Refused
    Ping(versions, session_id)                            ->  Pong(version, software, state, carries, now, names)
    Expect(domains)                                       ->  Expected(candidates) | Refused
    Ask(uuid)                                             ->  Runs(runs) | Refused
    Follow(cluster, epoch, offset)                        ->  Successor(newest, size, data, key) | Refused
    Weigh(offset)                                         ->  Weighed(load) | Refused
    Examine(addresses)                                    ->  Examined(refuses, hook ...) | Refused
    Recall(since)                                         ->  Recalled(recap) | Refused
    Probe(data)                                           ->  Probed(received, cpu_s) | Refused
    Warm(versions, session_id, token, domain, scope ...)  ->  Warmed(version, store_key ...) | Refused

Version policy: both sides name all versions that they speak; the highest common one holds. Fields are added with
defaults within a version, and unknown fields are ignored.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.framing import FrameSplitter, frame_payload
from dwcp_migrate.protocol.load import HostLoad
from dwcp_migrate.protocol.recap import MigrationRecap
from dwcp_migrate.protocol.worker import SESSION_ID_BYTES, TOKEN_BYTES

VERSIONS: Final = (1,)
"""Versions of this protocol and of the data channels' that this software speaks."""

FRAME_BYTES_MAX: Final = 64 * 1024
"""An `Opened` with `DOMAINS_MAX` candidates takes half of it."""

DOMAINS_MAX: Final = 128
"""Domains named in one message: more than can migrate at once (`policy.sessions_max` is at most 256, both sides)."""

PROBE_BYTES_MAX: Final = 48 * 1024
"""Of a measurement of the link in one message; the answer to it is a few bytes."""

ADDRESSES_MAX: Final = 64
"""Addresses and names in one message, each of one host."""

SUCCESSOR_BYTES_MAX: Final = 48 * 1024
"""Of a link in one message: a small group's fits into one, the largest there is into three."""

CONTROL_SESSION: Final = bytes(SESSION_ID_BYTES)
"""The session id in the preamble of a control connection."""

STATE_SESSION: Final = b"\xff" * SESSION_ID_BYTES
"""The session id in the preamble of a connection between replicas of the fleet's state."""

PBFT_SESSION: Final = b"\xfe" * SESSION_ID_BYTES
"""The session id in the preamble of a connection to a replica of the PBFT group."""

WITHDRAWN: Final = "withdrawn"
"""Result in `Close` of a migration of which nothing was sent: the source carries it by itself."""

_Text = Annotated[str, Meta(max_length=256)]
_Uuid = Annotated[str, Meta(max_length=36)]
_Versions = Annotated[tuple[int, ...], Meta(min_length=1, max_length=32)]
_SessionId = Annotated[bytes, Meta(min_length=SESSION_ID_BYTES, max_length=SESSION_ID_BYTES)]
_Port = Annotated[int, Meta(ge=1, le=65535)]


class DomainName(msgspec.Struct, frozen=True):
    """A domain as libvirt names it."""

    uuid: _Uuid
    name: _Text


_Domains = Annotated[tuple[DomainName, ...], Meta(max_length=DOMAINS_MAX)]


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement of both ends before bytes flow.

    Attributes:
        token: of the fleet's ticket; 0 is none: the two ends agree by themselves, point to point.
        expires_at: seconds since the epoch.
        certificate: as in the ticket.
    """

    token: Annotated[int, Meta(ge=0)] = 0
    uuid: _Uuid
    source: _Text
    destination: _Text
    generation: Annotated[int, Meta(ge=0)] = 0
    expires_at: float
    certificate: Annotated[bytes, Meta(max_length=32 * 1024)] = b""


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """Request to begin a migration.

    Attributes:
        versions: protocol versions that the source speaks.
        token: what every channel of the session will prove.
        address: where the migration was dialled; the destination's QEMU waits there, at `port`.
        domains: domains that migrate away from the source now; may be empty.
        cache_bytes: page cache that the source would keep.
        window_bytes: raw bytes that it would have in flight; 0 from an agent before 0.2.0, which has 64 MiB.
        channels_max: channels that it would open.
        permit: what the fleet, or the source alone, says of this migration; None from one that knows no domain.
        outlives: the source's data process outlives its agent: while that is away the migration goes on.
        scope: whose pages the destination may say it has; empty does not ask.
        may_stand_aside: the source lets bytes past the link, unencrypted, where the link outruns the pipeline.
        may_leave_in_tls: likewise, each connection of QEMU's in a TLS channel of its own.
    """

    versions: _Versions
    session_id: _SessionId
    token: Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
    address: _Text
    port: _Port
    domains: _Domains = ()
    cache_bytes: Annotated[int, Meta(ge=0)]
    channels_max: Annotated[int, Meta(ge=1, le=512)]
    permit: Permit | None = None
    outlives: bool = False
    window_bytes: Annotated[int, Meta(ge=0)] = 0
    scope: _Text = ""
    may_stand_aside: bool = False
    may_leave_in_tls: bool = False


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Acceptance of `Open`: a data process waits.

    Attributes:
        version: the one that holds.
        cache_bytes: the smaller of both ends' values.
        channels_max: likewise, and
        window_bytes: likewise; 0 from an agent before 0.2.0, which takes whatever is in flight.
        candidates: domains announced at the destination, one of which this is; empty when none had to be.
        agreed: `fleet`, `certificate` or `point-to-point`; empty when nothing was agreed on.
        remark: what the destination noticed about the permit and let pass: clocks or names that differ.
        outlives: as in `Open`, of the destination.
        store_key: of the names under which the destination will state pages; empty: it states none.
        may_stand_aside: both hosts do, as they do for `may_leave_in_tls`.
    """

    version: int
    cache_bytes: Annotated[int, Meta(ge=0)]
    channels_max: Annotated[int, Meta(ge=1, le=512)]
    candidates: _Domains = ()
    agreed: _Text = ""
    remark: _Text = ""
    outlives: bool = False
    window_bytes: Annotated[int, Meta(ge=0)] = 0
    store_key: Annotated[bytes, Meta(max_length=64)] = b""
    may_stand_aside: bool = False
    may_leave_in_tls: bool = False


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Refusal of a request. `code` is one of `refusals.BY_PEER`, or a newer agent's.

    Attributes:
        required: this host requires the fleet's agreement: the migration must not run unaccelerated either.
    """

    code: Annotated[str, Meta(max_length=64)]
    message: _Text = ""
    required: bool = False


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """Report of the end of a migration at the sender's host.

    Attributes:
        certain: libvirt said so, it is not our conclusion.
    """

    session_id: _SessionId
    result: _Text
    reason: Annotated[str, Meta(max_length=1024)] = ""
    uuid: _Uuid = ""
    domain: _Text = ""
    certain: bool = False


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Close`: the end at this host; `result` is empty while it still runs here."""

    result: _Text
    reason: Annotated[str, Meta(max_length=1024)] = ""
    uuid: _Uuid = ""
    domain: _Text = ""


class Ping(msgspec.Struct, frozen=True, kw_only=True):
    """Request: is the agent there, and what is it called.

    Attributes:
        session_id: and do you carry this migration? Empty does not ask.
    """

    versions: _Versions
    session_id: Annotated[bytes, Meta(max_length=SESSION_ID_BYTES)] = b""


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Ping`.

    Attributes:
        version: the highest common one, 0 if there is none.
        state: as `agent.api.AgentState`.
        carries: whether it carries the migration that was asked for; None from an agent that was not asked.
        now: its clock, seconds since the epoch; 0 from an agent before 0.2.0, as the names are empty.
        name: what it calls itself.
        known_as: what its configuration calls the asker.
    """

    version: int
    software: _Text
    state: _Text
    sessions: int
    carries: bool | None = None
    now: float = 0.0
    name: _Text = ""
    known_as: _Text = ""


class Expect(msgspec.Struct, frozen=True, kw_only=True):
    """Request: which of these domains, which leave the source, were announced at the destination."""

    domains: _Domains = ()


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Expect`: the announced domains."""

    candidates: _Domains = ()


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Request: does this domain run at the receiver's host."""

    uuid: _Uuid


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Ask`: it does, does not, or (None) that is not known now."""

    runs: bool | None


class Follow(msgspec.Struct, frozen=True, kw_only=True):
    """Request: the signed link to the members after this epoch of the PBFT group, from this byte on."""

    cluster: Annotated[bytes, Meta(min_length=16, max_length=16)]
    epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    offset: Annotated[int, Meta(ge=0, le=2**20)] = 0


class Successor(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Follow`: the link, as far as it is known here.

    Attributes:
        newest: epoch that this host knows; -1 where it knows nothing of that group.
        size: of the whole link in bytes; 0 where this host has none from that epoch on.
        data: of the link, from the offset that was asked for.
        key: this host's public key in the group; empty where it has none.
    """

    newest: Annotated[int, Meta(ge=-1)]
    size: Annotated[int, Meta(ge=0)] = 0
    data: Annotated[bytes, Meta(max_length=SUCCESSOR_BYTES_MAX)] = b""
    key: Annotated[bytes, Meta(max_length=32)] = b""


class Weigh(msgspec.Struct, frozen=True, kw_only=True):
    """Request: the load of the host and its guests, from this guest on in the order of UUIDs."""

    offset: Annotated[int, Meta(ge=0, le=2**20)] = 0


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Weigh`: loads of the last hour."""

    load: HostLoad


class Examine(msgspec.Struct, frozen=True, kw_only=True):
    """Request: would a migration be taken now, and which of these addresses, as the asker dials them, are yours."""

    addresses: Annotated[tuple[_Text, ...], Meta(max_length=ADDRESSES_MAX)] = ()


class HookRound(msgspec.Struct, frozen=True, kw_only=True):
    """A trial of the libvirt hook: the host's agent ran it as libvirt would and waited for its word.

    Attributes:
        problem: why the word did not come; empty when it did.
        round_trip_s: from its start to its word; 0 when that did not come.
        last_at: when libvirt's own call was heard last, seconds since the epoch; 0 = not since the agent started.
    """

    problem: _Text = ""
    round_trip_s: float = 0.0
    last_at: float = 0.0


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Examine`.

    Attributes:
        refuses: code of `refusals.BY_PEER` with which a migration would be refused now, whatever it is; else empty.
        own_addresses: those of the addresses in the request that are this host's.
        needs_announcement: a migration has to be announced, by the hook or by libvirt (`policy.require_announcement`).
        libvirt: version of the connected libvirtd, `libvirt_error` why none is; both empty where none is configured.
        sessions: migrations that it carries now, of `sessions_max`.
        certificate_names: DNS names in its certificate, which holds until `certificate_until`, seconds since the epoch.
        port_min: first port that it lets QEMU wait at, with `port_max`, the last one.
    """

    refuses: Annotated[str, Meta(max_length=64)] = ""
    own_addresses: Annotated[tuple[_Text, ...], Meta(max_length=ADDRESSES_MAX)] = ()
    needs_announcement: bool = True
    hook: HookRound = HookRound()
    libvirt: _Text = ""
    libvirt_error: _Text = ""
    sessions: int = 0
    sessions_max: int = 0
    certificate_names: Annotated[tuple[_Text, ...], Meta(max_length=ADDRESSES_MAX)] = ()
    certificate_until: float = 0.0
    port_min: _Port
    port_max: _Port


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Request: take this and count it. A measurement of the link sends many, the answers are small."""

    data: Annotated[bytes, Meta(max_length=PROBE_BYTES_MAX)]


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `Probe`.

    Attributes:
        received: bytes of this one's data.
        cpu_s: time of a processor that this agent has used since it started: whoever measures sees by two of them
            whether it was the link that held it up.
    """

    received: Annotated[int, Meta(ge=0)]
    cpu_s: float = 0.0


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """Request: the sums over the migrations that left the host and ended since then, seconds since the epoch."""

    since: float


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """These are they."""

    recap: MigrationRecap


class Warm(msgspec.Struct, frozen=True, kw_only=True):
    """Request to take pages of a guest that runs at the source into the page store: a session without a QEMU.

    Attributes:
        versions: as in `Open`, like all that is not named here.
        domain: whose pages they are.
        scope: that the source would keep them under; the destination says no unless it would, too.
    """

    versions: _Versions
    session_id: _SessionId
    token: Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
    domain: DomainName
    scope: Annotated[str, Meta(min_length=1, max_length=256)]
    cache_bytes: Annotated[int, Meta(ge=0)]
    window_bytes: Annotated[int, Meta(ge=1)]
    channels_max: Annotated[int, Meta(ge=1, le=512)]


class Warmed(msgspec.Struct, frozen=True, kw_only=True):
    """Acceptance of `Warm`: a data process waits. Its fields are as in `Opened`."""

    version: int
    cache_bytes: Annotated[int, Meta(ge=0)]
    window_bytes: Annotated[int, Meta(ge=1)]
    channels_max: Annotated[int, Meta(ge=1, le=512)]
    store_key: Annotated[bytes, Meta(min_length=1, max_length=64)]


Request = Open | Close | Ping | Expect | Ask | Follow | Weigh | Examine | Probe | Recall | Warm
"""All requests."""

Message = (
    Request
    | Opened
    | Refused
    | Closed
    | Pong
    | Expected
    | Runs
    | Successor
    | Weighed
    | Examined
    | Probed
    | Recalled
    | Warmed
)

_KINDS: Final[dict[str, type[Message]]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Open, Opened, Refused, Close, Closed, Ping, Pong, Expect, Expected),
        *(Ask, Runs, Follow, Successor, Weigh, Weighed),
        *(Examine, Examined, Probe, Probed, Recall, Recalled, Warm, Warmed),
    )
}


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A framed message that is not decoded yet."""

    id: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
    kind: Annotated[str, Meta(max_length=64)]
    body: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_envelopes = msgspec.msgpack.Decoder(Envelope)
_bodies = {name: msgspec.msgpack.Decoder(kind) for name, kind in _KINDS.items()}


def encode_control(request_id: int, message: Message) -> bytes:
    """Frame a message.

    Args:
        request_id: chosen by the side that asks, repeated in the answer; below 2^32.
        message: a request or an answer.

    Raises:
        LocalProtocolError: larger than `FRAME_BYTES_MAX`.
    """
    body = msgspec.Raw(_encoder.encode(message))
    data = _encoder.encode(Envelope(request_id, type(message).__name__.lower(), body))
    return frame_payload(data, FRAME_BYTES_MAX)


def decode_control(envelope: Envelope) -> Message | None:
    """Read the message in an envelope; None for a kind that this version does not know.

    Raises:
        RemoteProtocolError: a known kind that breaks its rules.
    """
    decoder = _bodies.get(envelope.kind)
    if decoder is None:
        return None
    try:
        message: Message = decoder.decode(envelope.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"control message {envelope.kind!r}: {error}") from error
    return message


def control_frames() -> FrameSplitter[Envelope]:
    """Make the splitter of a connection's bytes into envelopes; it raises RemoteProtocolError for anything else."""
    return FrameSplitter(_envelope, FRAME_BYTES_MAX)


def _envelope(data: memoryview) -> Envelope:
    try:
        envelope: Envelope = _envelopes.decode(bytes(data))  # its body is read later: it must not be lent memory
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"control frame: {error}") from error
    return envelope


def common_version(theirs: tuple[int, ...]) -> int:
    """Return the highest version that both speak, 0 if there is none."""
    return max(set(VERSIONS) & set(theirs), default=0)
