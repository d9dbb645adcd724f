"""Answers of the control API: JSON on the Unix socket `Config.control_socket` (mode 0660).

The rule: these structs are the contract with `dwcp-migrate status` and friends, with scripts, and with the metrics.
Fields are added, never renamed or removed within a version of the path.

    GET  /v1/status              AgentStatus
    GET  /v1/migrations          Migrations     those that run now, oldest first
    GET  /v1/migrations/{id}     Migration      running or ended; any unique prefix of the id
    GET  /v1/history?limit=N     Migrations     those that ended, newest first (N defaults to HISTORY_LIMIT_DEFAULT)
    GET  /v1/peers               Peers          asks every peer now, each within `link.connect_timeout_s`
    GET  /v1/config              RunningConfig  the configuration in force
    GET  /v1/doctor              Facts          raw facts; `dwcp-migrate doctor` explains them
    GET  /v1/predict?domain=D&peer=P&deadline_s=S   Predicted   time, downtime and bytes of a migration of D to P, and
                                 what is advised; measures D's dirty rate first, about a second
    GET  /v1/load                FleetLoad      what hosts and guests use, over the last hour; the peers are asked
    GET  /v1/measured            Measured       dirty rates and links as they were measured last; measures nothing
    POST /v1/share?domain=D&weight=W&deadline_s=S   Done   how D's next or running migration shares its link: W relative
                                 to the others, S seconds from now until it should be over (0: no deadline)
    POST /v1/drain, /undrain     Done           no new migrations: they pass through or are refused; and take them again
    POST /v1/disable?reason=R, /enable   Done   the same, but over restarts too
    POST /v1/reload              Done           configuration read again; peers, policy, TLS and log level change
    POST /v1/record?domain=D&directory=P   Done   the next migration from this host (of domain D; any if D is empty) is
                                 recorded into the existing directory P; without a query: disarmed
    GET  /v1/events              server-sent events; each `data:` line is one Update

Views of their own: `api.cluster` (the fleet's shared state), `api.peer_check`, `api.recap`, `api.limits`.

Errors: 400 (bad request), 404 (nothing like that), 409 (two match), 422 (wrong configuration), 500, with body Failure.
"""

from typing import Any, Final, Literal

import msgspec

from dwcp_migrate.api.cluster import GroupStatus, RecordFacts
from dwcp_migrate.api.migration import ExpectedMigration, Migration, MigrationEvent, MigrationPhase, Result, Role, State
from dwcp_migrate.api.usage import MemoryUse, StoreUse
from dwcp_migrate.api.warm import WarmUp
from dwcp_migrate.protocol.load import HostLoad
from dwcp_migrate.state.engine_status import EngineStatus

__all__ = [
    "BUCKETS",
    "HISTORY_LIMIT_DEFAULT",
    "HISTORY_LIMIT_MAX",
    "WEIGHT_MAX",
    "AgentState",
    "AgentStatus",
    "CertificateExpiry",
    "ConfigurationStatus",
    "Done",
    "ExpectedMigration",
    "Facts",
    "Failure",
    "GuestRate",
    "Hook",
    "Libvirt",
    "LinkForecast",
    "ListenerStatus",
    "Measured",
    "MemoryUse",
    "Migration",
    "MigrationEvent",
    "MigrationPhase",
    "Migrations",
    "PeerView",
    "Peers",
    "Predicted",
    "RedirectRule",
    "RedirectStatus",
    "Result",
    "Role",
    "RunningConfig",
    "State",
    "StoreUse",
    "Totals",
    "Update",
]

HISTORY_LIMIT_DEFAULT: Final = 20
HISTORY_LIMIT_MAX: Final = 1000

WEIGHT_MAX: Final = 1000.0

AgentState = Literal["running", "draining", "stopping"]


NOT_CAUGHT_CAUSES: Final = ("draining", "other-address", "not-redirected", "other-port", "unseen")
"""Causes of a migration that was not caught: the agent drained, the address is no peer's, it is a peer's but was not
redirected, the port is outside of the range, or no connection was seen."""

BUCKETS: Final = {
    "duration_seconds": (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
    "downtime_seconds": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0),
    "prediction_error_ratio": (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
}
"""Upper bounds of the histograms' buckets, in the metric's unit; a value above the last bound is in none."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the agent started; every one only grows. Keys of the maps come from fixed sets.

    Attributes:
        migrations: ended, by `ROLE RESULT`: `source completed`, `destination failed` ...
        accelerated: of these, by role.
        not_caught: migrations that left this host past the agent, by one of `NOT_CAUGHT_CAUSES`.
        passthrough: migrations that ran unaccelerated, by reason: a code of `refusals.UNACCELERATED`,
            `unreachable`, `certificate`, `version`, `no-peer`, `foreign`, `draining`, `stopping`, `busy`, `limit`,
            `no-data-process`.
        refused: requests of peers that this agent refused, by code of `refusals.BY_PEER`.
        rejected: connections closed on a listener, by `LISTENER REASON`: `link preamble`, `link tls`,
            `redirect not-redirected` ...
        raw_bytes: by role; ended and running migrations together, like the rest below.
        wire_bytes: by role.
        reverse_bytes: return path, by role.
        opaque_bytes: by role.
        pages: by role and kind: `source zero`, `source delta` ...
        held_up_s: time of outgoing migrations by the stage that all others waited for: `link`, `compressors` ...
        unclassified_bytes: of pages sent as they are, because the pipeline was what held QEMU up.
        aside_bytes: that went past the channels, each connection of QEMU's on one of its own.
        plain_bytes: of these, unencrypted.
        resent_segments, repaired_segments, channels_lost, link_losses: of all migrations.
        data_process_crashes: data processes that ended without a last message.
        adopted: migrations taken over from the agent before this one.
        announcements: migrations that the hook announced.
        postcopy_failed: times that libvirt said of a guest here that its postcopy broke off.
        duration_s: sum over ended migrations, by role.
        predictions: migrations that were predicted and completed, `inside` or `outside` of the interval of their time.
        prediction_error: sum of the relative errors of their times, unsigned.
        buckets: ended migrations by size, by `NAME [ROLE] BOUND` of `BUCKETS`, each in the first that holds it.
        downtime_ms: sum over those of them that libvirt told a downtime of, by role, with `downtime_count`.
    """

    migrations: dict[str, int] = {}
    accelerated: dict[str, int] = {}
    passthrough: dict[str, int] = {}
    not_caught: dict[str, int] = {}
    refused: dict[str, int] = {}
    rejected: dict[str, int] = {}
    raw_bytes: dict[str, int] = {}
    wire_bytes: dict[str, int] = {}
    reverse_bytes: dict[str, int] = {}
    opaque_bytes: dict[str, int] = {}
    pages: dict[str, int] = {}
    held_up_s: dict[str, float] = {}
    unclassified_bytes: int = 0
    aside_bytes: int = 0
    plain_bytes: int = 0
    resent_segments: int = 0
    repaired_segments: int = 0
    channels_lost: int = 0
    link_losses: int = 0
    data_process_crashes: int = 0
    adopted: int = 0
    announcements: int = 0
    postcopy_failed: int = 0
    predictions: dict[str, int] = {}
    prediction_error: float = 0.0
    duration_s: dict[str, float] = {}
    downtime_ms: dict[str, int] = {}
    downtime_count: dict[str, int] = {}
    buckets: dict[str, int] = {}


class RedirectRule(msgspec.Struct, frozen=True, kw_only=True):
    """One redirect rule: connections towards a peer's address, and how many it caught."""

    peer: str
    address: str
    packets: int
    bytes: int


class RedirectStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The redirect.

    Attributes:
        wanted: configured (`intercept.redirect`) and not draining or stopping.
        armed: the kernel has the table and all its rules.
        error: why it is not armed although wanted.
        port_min: the redirected ports, with `port_max`.
        addresses: of peers, that are known and to be redirected.
        left_alone: names of peers whose addresses are not redirected for now, since QEMU alone is faster over their
            links (`policy.step_aside`).
    """

    wanted: bool
    armed: bool
    error: str = ""
    port_min: int
    port_max: int
    rules: list[RedirectRule] = []
    addresses: int = 0
    left_alone: list[str] = []


class Libvirt(msgspec.Struct, frozen=True, kw_only=True):
    """The connection to libvirtd.

    Attributes:
        uri: empty when the agent runs without.
        error: why it is not connected.
        version: libvirt's, as `11.3.0`.
    """

    uri: str
    connected: bool
    error: str = ""
    version: str = ""


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """The libvirt hook's traces.

    Attributes:
        socket: where it announces.
        listening: the socket is there.
        last_at: its last announcement, seconds since the epoch; 0 = none since the agent started.
        pending: announced migrations that may still arrive.
    """

    socket: str
    listening: bool
    last_at: float
    pending: int


class CertificateExpiry(msgspec.Struct, frozen=True, kw_only=True):
    """One PEM file of the `tls` table.

    Attributes:
        use: `ca` or `host`.
        names: DNS names in it.
        not_before: seconds since the epoch, as `not_after`; 0 when it could not be read.
        error: why it could not be read.
    """

    use: Literal["ca", "host"]
    path: str
    names: list[str] = []
    not_before: float = 0.0
    not_after: float = 0.0
    error: str = ""


class ListenerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A socket that the agent listens on.

    Attributes:
        use: `redirect`, `explicit`, `link`, `control`, `hook` or `metrics`.
        address: `address:port` or a path.
        error: why it does not listen.
    """

    use: str
    address: str
    listening: bool
    error: str = ""


class LinkForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Forecast of the link to a peer, in bytes a second on the wire.

    Attributes:
        next_minute: quantiles 0.1, 0.5 and 0.9 of the mean over the next minute in which migrations fill it.
    """

    peer: str
    next_minute: tuple[float, float, float]


class GuestRate(msgspec.Struct, frozen=True, kw_only=True):
    """Rate at which a domain of this host wrote memory, the median of its last few measurements."""

    domain: str
    dirty_bytes_per_s: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements of this host's guests and links; those that were never measured are left out."""

    guests: list[GuestRate] = []
    links: list[LinkForecast] = []


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction before the start.

    Attributes:
        expected: as a record will carry it.
        reason: why `expected.way` is advised.
        memory_bytes: of the domain.
        dirty_bytes_per_s: what the guest writes; three quantiles, as the next.
        link_bytes_per_s: what the link will carry.
        link_known: migrations to this peer were measured; otherwise the link's range is a guess.
        rtt_s: round trip to the peer; 0 where it did not answer.
    """

    domain: str
    peer: str
    expected: ExpectedMigration
    reason: str
    memory_bytes: int
    dirty_bytes_per_s: tuple[float, float, float]
    link_bytes_per_s: tuple[float, float, float]
    link_known: bool
    rtt_s: float


class ConfigurationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last reading of the configuration file.

    Attributes:
        path: of the file.
        read_at: when it was read last without error, seconds since the epoch.
        error: why the last reading was refused; empty when it was not.
        pending_restart: keys whose new values wait for a restart of the agent.
    """

    path: str = ""
    read_at: float = 0.0
    error: str = ""
    pending_restart: list[str] = []


class RunningConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force: `values` are its keys as the file would say them, defaults included."""

    status: ConfigurationStatus
    values: dict[str, Any]


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The agent at a glance, and all that the metrics need.

    Attributes:
        configuration: last reading of the configuration file.
        peers_up: whether each peer's agent answered when it was last asked, about once a minute.
        name: this host's name as peers know it.
        version: of this software.
        pid: the agent's.
        started_at: seconds since the epoch.
        now: the agent's clock when it answered.
        spare_ready: a warm data process waits for the next migration.
        hook_last_at: as `Hook.last_at`.
        migrations: those that run now, oldest first.
        links: forecasts, of the peers to which migrations were measured.
        load: what this host uses, without its guests.
        faults: unforeseen exceptions since the agent started, by part; each is in its log.
        disabled: that an operator disabled the agent, and why, in words; empty where not.
        warm_ups: from this host, those that run and the last that ended, newest first.
    """

    name: str
    version: str
    pid: int
    state: AgentState
    started_at: float
    now: float
    peers: int
    spare_ready: bool
    hook_last_at: float
    totals: Totals
    intercept: RedirectStatus
    libvirt: Libvirt
    certificates: list[CertificateExpiry]
    migrations: list[Migration]
    coordination: EngineStatus = EngineStatus(engine="", state="stopped")
    group: GroupStatus = GroupStatus()
    links: list[LinkForecast] = []
    memory: MemoryUse = MemoryUse()
    load: HostLoad = HostLoad()
    faults: dict[str, int] = {}
    configuration: ConfigurationStatus = ConfigurationStatus()
    peers_up: dict[str, bool] = {}
    disabled: str = ""
    store: StoreUse = StoreUse()
    warm_ups: list[WarmUp] = []


class Migrations(msgspec.Struct, frozen=True, kw_only=True):
    """Several migrations. `now` is the agent's clock when it answered."""

    now: float
    migrations: list[Migration]


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    """A configured peer and how it answered just now.

    Attributes:
        link_addresses: over which channels are spread; empty is the one of `addresses` that answered.
        version: of its software, with `protocol`, the protocol version that both speak; empty and 0 if unreachable.
        state: its agent's.
        rtt_s: round trip of a request on the control connection; 0 if unreachable.
        code: why it is unreachable: `unreachable`, `certificate`, `version` or a refusal's code; empty if reachable.
        error: the same for people, `hint` what to do about it.
        retry_in_s: how long migrations towards it pass through before it is probed again; 0 = it is probed.
        clock_ahead_s: how far its clock is ahead of this host's; 0 where it does not tell.
        silent: its addresses at which it does not answer, with the reason.
        not_redirected: why migrations to it are not redirected, where none of its addresses can be.
        calls_itself: its name in its own configuration, with `calls_us`, this host's in that; empty where it does not
            tell.
    """

    name: str
    addresses: list[str]
    link_addresses: tuple[str, ...] = ()
    port: int
    reachable: bool
    silent: dict[str, str] = {}
    not_redirected: str = ""
    clock_ahead_s: float = 0.0
    calls_itself: str = ""
    calls_us: str = ""
    version: str = ""
    protocol: int = 0
    state: str = ""
    rtt_s: float = 0.0
    code: str = ""
    error: str = ""
    hint: str = ""
    retry_in_s: float = 0.0


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """All configured peers."""

    peers: list[PeerView]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that `dwcp-migrate doctor` judges; the agent itself judges nothing.

    Attributes:
        name_in_certificate: the host certificate carries this host's name.
        explicit_peer: who the explicit form migrates to; empty when it is off.
        history_error: why the history cannot be written; empty when it can.
        core_dumps_off: neither the agent nor its data processes can leave guest memory in a core dump.
        configuration_error: why the last reload was refused; empty when it was taken.
        open_descriptors: of the agent, with the limit on them.
        group: the PBFT group.
        fleet: the fleet's record.
        pending_restart: keys whose new values wait for a restart.
        tls_error: why the agent cannot use certificate, key and CA together; empty when it can.
        foreign: `ADDRESS port PORT` of connections that are relayed although they belong to no migration.
        ports_not_redirected: hosts of the fleet whose migration ports are not all redirected here, and why.
    """

    name: str
    version: str
    state: AgentState
    intercept: RedirectStatus
    libvirt: Libvirt
    hook: Hook
    certificates: list[CertificateExpiry]
    name_in_certificate: bool
    listeners: list[ListenerStatus]
    peers: list[PeerView]
    spare_ready: bool
    explicit_peer: str
    history_error: str
    core_dumps_off: bool
    configuration_error: str
    open_descriptors: int
    open_descriptors_max: int
    group: GroupStatus = GroupStatus()
    fleet: RecordFacts = RecordFacts()
    foreign: list[str] = []
    ports_not_redirected: list[str] = []
    memory: MemoryUse = MemoryUse()
    store: StoreUse = StoreUse()
    pending_restart: list[str] = []
    tls_error: str = ""


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """One server-sent event: a migration's new record, or the agent's new state.

    A reader that falls behind by `agent.tracking.registry.UPDATES_WAITING_MAX` updates is cut off and has to ask anew.
    """

    at: float
    state: AgentState
    migration: Migration | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A request took effect. `message` is for people."""

    state: AgentState
    message: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A request failed. `hint` says what to do about it."""

    error: str
    hint: str = ""
