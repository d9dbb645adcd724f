"""Protocol between the agent and its data processes: messages, and where they find each other.

Each data process holds one end of a `SOCK_SEQPACKET` pair. One message is one datagram: msgpack, at most
`MESSAGE_BYTES_MAX`, with file descriptors beside it (SCM_RIGHTS) where the message says so.

    agent -> data process                          data process -> agent
    StandBy + 1 fd to hold (not always)            WorkerReady            imports done, waiting
    Hold + 1 fd, Release
    StartSource | StartDestination | StartRelay
        + 1 fd to hold until the end (not always)
    AddConnection   + 1 fd (relay: 2)              Happened         something worth a log line or a state
    AddChannel      + 1 fd (destination)
    SetRate                                           WorkerProgress         counters, every PROGRESS_S
    Abort                                          Finished         the session is over
    Noted, half-close                              Returned + fds   a connection that came too late; then it exits

A source's data process stands by while the migration is set up: it holds each connection, too, and relays those that it
holds where the agent ends before it said what becomes of them.

A data process outlives its agent. It connects to the next one at `RENDEZVOUS_SOCKET` in the runtime directory, with
`Reunited`; the agent answers `Adopted`, hears again what its predecessor had not heard, and all goes on as above. A
session that ends while there is no agent leaves a `Farewell` in the runtime directory for the next one.

An agent may be newer than the data process that comes to it, never older: `Reunited` says which version of these
messages it knows, fields are added with defaults, and unknown fields are ignored.
"""

from typing import Final

import msgspec

from dwcp_migrate.protocol.session_memory import WINDOW_BYTES_MAX
from dwcp_migrate.units import GIB

WORKER_VERSION: Final = 1
"""Of these messages."""

RENDEZVOUS_SOCKET: Final = "sessions.sock"
"""Socket at which data processes find the next agent, in the runtime directory."""

SESSIONS_DIRECTORY: Final = "sessions"
"""Directory of the running migrations for the next agent, in the runtime directory."""

FAREWELL_SUFFIX: Final = ".ended"
LOCK_SUFFIX: Final = ".lock"

MESSAGE_BYTES_MAX: Final = 64 * 1024
PROGRESS_S: Final = 0.5
TOKEN_BYTES: Final = 32
SESSION_ID_BYTES: Final = 16


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The page store of this host, for one session.

    Attributes:
        directory: where it is.
        bytes_max: of all that it holds.
        keep_s: what was of no use for so long is removed.
        scope: whose pages these are; nobody else's are looked at or stated.
    """

    directory: str
    bytes_max: int
    keep_s: float
    scope: str


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """Ways out of the channels that both hosts allow QEMU's connections, for where the link outruns the pipeline.

    Attributes:
        in_clear: as QEMU sends them.
        in_tls: each in the TLS of a channel that it gets for itself; `in_clear` comes first.
        from_start: why they leave from the first moment; empty lets this migration's own measurements decide.
    """

    in_clear: bool = False
    in_tls: bool = False
    from_start: str = ""

    @property
    def is_allowed(self) -> bool:
        """Whether they may, one way or the other."""
        return self.in_clear or self.in_tls


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a session from the configuration, as agreed between the agents.

    Attributes:
        granted_bytes: of the host's memory budget, see `protocol.session_memory`.
        cache_bytes: page cache, the smaller of both ends' values; `window_bytes` likewise, raw bytes in flight.
        table_bytes: page table of a source.
        is_window_agreed: the peer keeps to the window, too; one of an older version has a fixed one.
        channels: 0 is adaptive.
        workers: 0 is a quarter of the host's cores, at least two.
        codec: auto, none, lz4 or zstd.
        store: where pages are kept when it is over; None keeps none.
        departure: how QEMU's connections may leave the channels.
    """

    ca: str
    certificate: str
    key: str
    cache_bytes: int
    channels: int
    channels_max: int
    congestion_control: str
    connect_timeout_s: float
    loss_s_max: float
    in_flight_ms_max: int
    workers: int
    codec: str
    level: int
    level_max: int
    record_directory: str = ""
    record_bytes_max: int = 0
    granted_bytes: int = GIB
    window_bytes: int = WINDOW_BYTES_MAX
    table_bytes: int = GIB
    is_window_agreed: bool = True
    store: StoreOptions | None = None
    departure: Departure = Departure()


class StandBy(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Relay the connections that you hold, if I am gone before the session is started or they are handed over.

    Attributes:
        session_id: of the migration's record.
        addresses: of the destination, in the order in which to try them.
        port: where its QEMU waits.
        mark: socket mark that the redirect lets pass, 0 for none.
    """

    session_id: bytes
    addresses: tuple[str, ...]
    port: int
    mark: int = 0


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One connection of QEMU's of which nothing has been read (fd 0), number `accepted` of this migration."""

    accepted: int


class Release(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let go of a connection that you hold: I have ended it."""

    accepted: int


class GuestPages(msgspec.Struct, frozen=True, kw_only=True):
    """Pages that a source reads out of a guest's memory itself, for the destination's store: a warm-up.

    Attributes:
        uri: of the guest's libvirtd.
        uuid: of the guest.
        begin: guest-physical address of the first one.
        pages_max: that are not zero; it stops where a piece might bring more.
    """

    uri: str
    uuid: str
    begin: int
    pages_max: int


class StartSource(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Carry a migration to a peer whose agent has already agreed to it.

    Attributes:
        session_id: 16 random bytes, the routing key of the channels.
        token: 32 random bytes that every channel proves inside TLS.
        peer_name: name that the peer's certificate must carry.
        peer_address: where its link port listens.
        link_addresses: at which the channels are spread; empty is `peer_address` alone.
        stated_key: of the names under which the destination has pages, where it states them; empty: it does not.
        reads: no QEMU sends anything: it reads these pages itself.
    """

    session_id: bytes
    token: bytes
    peer_name: str
    peer_address: str
    peer_port: int
    options: SessionOptions
    stated_key: bytes = b""
    link_addresses: tuple[str, ...] = ()
    reads: GuestPages | None = None


class StartDestination(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Receive a migration and write it into the QEMU that waits at `target_address:target_port`.

    Attributes:
        peer_name: name that the channels' client certificates must carry.
        states: tell the source what this host's store has.
        discards: no QEMU waits: what was rebuilt goes nowhere, and its pages to the store.
    """

    session_id: bytes
    token: bytes
    peer_name: str
    target_address: str
    target_port: int
    options: SessionOptions
    states: bool = False
    discards: bool = False


class StartRelay(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Pass connections through byte for byte: no agent at the destination, or not wanted.

    Attributes:
        session_id: of the migration's record.
        reason: why, for the record.
    """

    session_id: bytes = b""
    reason: str


class AddConnection(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One connection of QEMU's (fd 0); for a relay also the connected onward socket (fd 1).

    Attributes:
        connection: its number in the session.
        accepted: its number in `Hold`; -1: it was not held.
    """

    connection: int
    accepted: int = -1


class AddChannel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One TCP connection of the peer's whose preamble named this session (fd 0); TLS is still to come."""


class SetRate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Hold the channels' bulk, all together, to a rate on the wire; 0 for none. A source understands it.

    Attributes:
        alone_bytes_per_s: the rate for a source whose agent is gone for a while: nobody shares the link out any more.
    """

    bytes_per_s: float
    alone_bytes_per_s: float = 0.0


class Adopted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answer to `Reunited`: the sender is the next agent, and takes over this migration's record.

    Attributes:
        heard: serial of the last `Happened` that is in the record already; later ones are to be told again.
    """

    heard: int


class Noted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answer to `Finished`: it was received, and the process may exit once the half-close follows."""


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Reset everything and exit."""

    reason: str


class WorkerReady(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Imports are done; the next message starts a session."""

    pid: int


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something worth a log line or a change of state.

    Attributes:
        event: one of `EVENTS`.
        connection: which of QEMU's connections, -1 for the session as a whole.
        detail: for people.
        number: a value that belongs to the event: an iteration, a byte count, a channel count.
        at: when, in seconds since the epoch; 0 from a process that does not say so.
        serial: 1, 2, 3 ... in each data process; 0 where it is not counted.
    """

    event: str
    connection: int = -1
    detail: str = ""
    number: int = 0
    at: float = 0.0
    serial: int = 0


EVENTS: Final = frozenset(
    {
        "connection-opened",  # detail: kind (main, multifd, opaque, tls, nbd)
        "connection-closed",
        "uuid",  # detail: the guest's UUID as a multifd channel announces it
        "ram-total",  # number: bytes of guest memory that the stream announces
        "iteration",  # number: dirty_sync_count as far as the stream shows it
        "switchover",  # RAM's SECTION_END passed: the guest is paused
        "postcopy",  # the stream switched to postcopy
        "opaque",  # detail: why a connection is no longer parsed
        "repaired",  # a segment arrived wrong and was sent again raw
        "channel-lost",  # detail: why
        "link-lost",  # all channels are gone; waiting
        "link-restored",  # number: milliseconds it took
        "coding",  # detail: the coding of segments from here on, and the stage that held the migration up
        "stands-aside",  # detail: how and why QEMU's bytes go past the channels from here on
        "left-alone",  # detail: the agent ended, and what it had not handed over is relayed
        "record-full",  # the recording reached its limit
        "readable",  # number: bytes of the guest's memory that a warm-up can read
        "warmed",  # number: address at which a warm-up stopped; 0: it came to the end of the guest's memory
        "store",  # detail: the fault of this host's page store, or of the peer's statement
    }
)


class MigrationCounters(msgspec.Struct, kw_only=True):
    """Totals of one data process since it started; every value only grows unless it says otherwise.

    Attributes:
        raw_bytes: taken from QEMU (source) or written into it (destination), all connections, forward.
        wire_bytes: sent or received on the channels, frames included, before TLS.
        reverse_bytes: return path.
        pages: by kind: zero, duplicate, same, delta, new, known. Opaque bytes are in `opaque_bytes`.
        in_flight_bytes: raw bytes taken and not yet acknowledged (a gauge).
        channels: up now (a gauge).
        rtt_s: smallest round trip of the link seen lately (a gauge).
        retransmits: packets that the kernel sent again.
        link_waiting_s: time in which encoded bytes waited for a channel (source).
        path_waiting_s: the same, and time in which nothing more was taken because of what was under way (source).
        held_up_s: time by the stage that all others waited for (source; see `dataplane.pipeline_monitor.Stage`).
        unclassified_bytes: raw bytes of pages sent as they are, because the pipeline was what held QEMU up.
        stated_pages: that the destination said it has.
        missed_segments: that named a page which was not there after all (source).
        channel_bytes: both directions, of each channel that there ever was; of very many lost ones together.
        path_bytes: both directions, on the channels to each of the peer's addresses (source).
        aside_bytes: both directions, went past the channels (in raw_bytes, reverse_bytes, wire_bytes too).
        plain_bytes: of these, unencrypted.
    """

    raw_bytes: int = 0
    wire_bytes: int = 0
    reverse_bytes: int = 0
    opaque_bytes: int = 0
    pages: dict[str, int] = {}
    segments: int = 0
    resent_segments: int = 0
    repaired_segments: int = 0
    channels_lost: int = 0
    link_losses: int = 0
    in_flight_bytes: int = 0
    channels: int = 0
    rtt_s: float = 0.0
    retransmits: int = 0
    link_waiting_s: float = 0.0
    path_waiting_s: float = 0.0
    cpu_s: float = 0.0
    held_up_s: dict[str, float] = {}
    unclassified_bytes: int = 0
    stated_pages: int = 0
    missed_segments: int = 0
    aside_bytes: int = 0
    plain_bytes: int = 0
    channel_bytes: list[int] = []
    path_bytes: dict[str, int] = {}


class WorkerProgress(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Progress of a session."""

    counters: MigrationCounters


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The session is over; only `Returned` follows.

    Attributes:
        result: `carried` (every connection ended in order), `reset` (an end of QEMU's reset or vanished),
            `link-lost`, `aborted`, `failed` (a fault of ours, see `detail`).
    """

    result: str
    counters: MigrationCounters
    detail: str = ""


class Returned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A connection that arrived when the session was over, untouched, with the descriptors of its `AddConnection`.

    Another migration to the same port may begin in the instant in which this one ends; its first connection must not
    be lost with the process.
    """

    connection: int


class Reunited(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Greeting of a data process to the next agent: it carries a migration of the former one.

    Attributes:
        version: of these messages that it knows.
        pid: of this process.
        kind: `source`, `destination` or `relay`.
        connections: of QEMU's, so far; the next one gets this number.
        counters: totals so far.
    """

    version: int
    pid: int
    session_id: bytes
    kind: str
    connections: int
    counters: MigrationCounters


class Farewell(msgspec.Struct, frozen=True, kw_only=True):
    """File that a session leaves which ended while there was no agent.

    Attributes:
        events: all that are still known, oldest first.
    """

    finished: Finished
    events: tuple[Happened, ...]


ToWorker = (
    StandBy
    | Hold
    | Release
    | StartSource
    | StartDestination
    | StartRelay
    | AddConnection
    | AddChannel
    | SetRate
    | Abort
    | Adopted
    | Noted
)
FromWorker = WorkerReady | Happened | WorkerProgress | Finished | Returned | Reunited

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)
_farewell = msgspec.msgpack.Decoder(Farewell)


def encode_worker_message(message: ToWorker | FromWorker) -> bytes:
    """Serialise a message.

    Raises:
        ValueError: larger than `MESSAGE_BYTES_MAX`.
    """
    data = _encoder.encode(message)
    if len(data) > MESSAGE_BYTES_MAX:
        raise ValueError(f"message of {len(data)} bytes, at most {MESSAGE_BYTES_MAX}")
    return data


def decode_to_worker(data: bytes) -> ToWorker:
    """Read a message of the agent's. Raises msgspec.ValidationError or DecodeError on anything else."""
    message: ToWorker = _to_worker.decode(data)
    return message


def decode_from_worker(data: bytes) -> FromWorker:
    """Read a data process's message. Raises msgspec.ValidationError or DecodeError on anything else."""
    message: FromWorker = _from_worker.decode(data)
    return message


def encode_farewell(farewell: Farewell) -> bytes:
    """Serialise the content of a farewell file."""
    return _encoder.encode(farewell)


def decode_farewell(data: bytes) -> Farewell:
    """Read a farewell file. Raises msgspec.ValidationError or DecodeError on anything else."""
    farewell: Farewell = _farewell.decode(data)
    return farewell
