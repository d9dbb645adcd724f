"""The keys of the agent's configuration: one typed file, every default argued here and nowhere else.

A key's suffix is its unit (`_bytes`, `_bytes_per_s`, `_s`, `_ms`, each with `_max` behind it or not); in the file
a value may be written with one (`quantities`).
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dwcp_migrate.units import GIB, MIB, PORT_MAX, PORT_MIN, TIB

DEFAULT_PATH = Path("/etc/dwcp-migrate/agent.toml")

Port = Annotated[int, Meta(ge=1, le=65535)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=2_592_000)]
"""At most thirty days: a longer time is taken for a mistake."""
Rate = Annotated[float, Meta(ge=0, le=1e12)]
"""Bytes a second, up to 8 Tbit/s."""
NamePattern = Annotated[str, Meta(pattern=r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$", max_length=253)]
Label = Annotated[str, Meta(max_length=256)]


Codec = Literal["", "auto", "none", "lz4", "zstd"]
"""As `encoding.codec`; empty leaves that."""
Clock = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class RateHours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hours of each day, by this host's clock, in which a limit holds.

    Attributes:
        begin: as `08:00`.
        end: as `18:30`; before `begin` it is that of the next day.
        link_bytes_per_s_max: what migrations may use of the link then.
    """

    begin: Clock
    end: Clock
    link_bytes_per_s_max: Annotated[float, Meta(gt=0, le=1e12)]


Hours = Annotated[tuple[RateHours, ...], Meta(max_length=24)]


class DomainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of some domains, for migrations that leave this host; the first entry that names a domain counts.

    Attributes:
        names: of domains, with `*` and `?` as a shell reads them.
        accelerate: false lets them run as without the agent (`configured`).
        codec: in the place of `encoding.codec`; empty leaves that.
        link_bytes_per_s_max: what a migration of such a domain may use of the link; 0 is no limit of its own.
        hours: limits that hold at times of the day.
    """

    names: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=1024)]
    accelerate: bool = True
    codec: Codec = ""
    link_bytes_per_s_max: Rate = 0.0
    hours: Hours = ()


class PeerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another hypervisor whose agent may receive our migrations and send us theirs.

    Attributes:
        name: the DNS name in its certificate; the only name that it may prove.
        addresses: its addresses as migrations dial them, or names that resolve to them here.
        port: its agent's link port.
        trust_domain: who operates it; where that differs from `coordination.trust_domain`, and a PBFT group is
            configured, migrations to and from it need a certificate. The peer's own statement does not count.
        link_bytes_per_s_max: what migrations to it may use of the link, where that is less than
            `bandwidth.link_bytes_per_s_max`; 0 is no limit of its own.
        accelerate: false lets migrations to it run as without the agent (`configured`).
        codec: in the place of `encoding.codec`; empty leaves that.
        hours: limits that hold at times of the day.
        link_addresses: IP addresses of its agent over which a migration's channels are spread, all at once; empty is
            the one of `addresses` that answered.
    """

    name: str
    addresses: Annotated[list[str], Meta(min_length=1)]
    port: Port = 7802
    trust_domain: Annotated[str, Meta(max_length=256)] = ""
    link_bytes_per_s_max: Rate = 0.0
    accelerate: bool = True
    codec: Codec = ""
    hours: Hours = ()
    link_addresses: Annotated[tuple[str, ...], Meta(max_length=16)] = ()


class TlsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files; `dwcp-migrate cert` makes them where no PKI exists. Read anew for each migration."""

    ca: Path = Path("/etc/dwcp-migrate/tls/ca.pem")
    certificate: Path = Path("/etc/dwcp-migrate/tls/host.pem")
    key: Path = Path("/etc/dwcp-migrate/tls/host.key")


class InterceptConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Interception of QEMU's connections.

    Attributes:
        redirect: nftables redirect of libvirt's ports towards the peers; off for `--migrateuri` only.
        port: where redirected connections arrive, on loopback only.
        explicit_port: where `--migrateuri tcp://127.0.0.1:PORT` arrives; 0 is off. It needs `explicit_peer`.
        explicit_peer: the peer that the explicit form migrates to.
        mark: bits in the mark of the agent's own sockets, by which the redirect lets them pass; 0 marks none, they pass
            by the agent's user. An agent that runs as root, as libvirtd does, then takes 0x1000.
        port_min: first port of libvirt's range (`migration_port_min` of qemu.conf on the destination).
        port_max: last port of it.
    """

    redirect: bool = True
    port: Port = 7801
    explicit_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    explicit_peer: str = ""
    mark: Annotated[int, Meta(ge=0, le=0x7FFFFFFF)] = 0
    port_min: Port = PORT_MIN
    port_max: Port = PORT_MAX


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agents' link for one migration.

    Attributes:
        listen: address of the link port; peers must reach it. `::` is every address of both families, of IPv4 alone on
            a host without IPv6. One that the host does not have yet is listened on once it has it.
        port: the link port.
        channels: TCP channels of a migration; 0 grows while the measured rate still rises.
            The longer and lossier the link, the less one flow carries.
        channels_max: bound of the above.
        congestion_control: set on every channel; empty keeps the kernel's default.
        connect_timeout_s: probe of a peer's agent before a migration passes through unaccelerated; two repetitions of a
            lost packet fit into it. Only a firewall that drops, or an agent that hangs, makes a migration wait for it.
        negative_cache_s: how long an address of a peer that let that time pass is not probed again.
        loss_s_max: how long a migration waits for a link that was cut before it fails as a broken TCP does.
        in_flight_ms_max: raw bytes accepted from QEMU and not yet taken by the other QEMU, in time at the
            current rate beyond one round trip. They add to downtime.
    """

    listen: str = "::"
    port: Port = 7802
    channels: Annotated[int, Meta(ge=0, le=512)] = 0
    channels_max: Annotated[int, Meta(ge=1, le=512)] = 64
    congestion_control: str = ""
    connect_timeout_s: PositiveSeconds = 5.0
    negative_cache_s: PositiveSeconds = 30.0
    loss_s_max: PositiveSeconds = 120.0
    in_flight_ms_max: Annotated[int, Meta(ge=1, le=5000)] = 50


class EncodingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Encoding of the pages.

    Attributes:
        cache_bytes: last versions sent, kept on both hosts for deltas; the smaller of both ends' values counts.
        workers: threads of a migration that compress (source) or decompress (destination); 0 is a quarter of the
            host's cores, at least two: the rest is the guests'.
        codec: `auto` follows the link (none, lz4, zstd by level), the others pin it.
        level: zstd level when the codec is pinned to zstd.
        level_max: ceiling of `auto`; beyond 6 CPU grows much faster than the gain.
    """

    cache_bytes: Annotated[int, Meta(ge=0, le=TIB)] = 1 * GIB
    workers: Annotated[int, Meta(ge=0, le=64)] = 0
    codec: Literal["auto", "none", "lz4", "zstd"] = "auto"
    level: Annotated[int, Meta(ge=1, le=19)] = 1
    level_max: Annotated[int, Meta(ge=1, le=19)] = 6


class MigrationPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits and permissions of migrations.

    Attributes:
        require_announcement: dial a waiting QEMU only after this host's hook or libvirt announced a migration.
        announcement_s_max: how long an announcement stays good; after that libvirt itself is asked.
        hook_strict: a hook that cannot reach its agent fails the migration instead of letting it run plain.
        sessions_max: migrations at once, each side counted.
        memory_bytes_max: what all migrations at once may occupy on this host, beside a fifth of what it has to spare at
            the moment; 0 is no further bound. One that there is no memory for runs unaccelerated.
        step_aside: what to do where the link outruns the agents: `encrypted` gives each of QEMU's connections a TLS
            connection of its own, past the pipeline; `auto` lets bytes that QEMU sends in clear go in clear; `never`
            keeps all on the channels, which bear lost connections, and are slower there.
        observe: take part in nothing, and keep of each migration from here what it would have taken accelerated.
    """

    require_announcement: bool = True
    announcement_s_max: PositiveSeconds = 600.0
    hook_strict: bool = False
    sessions_max: Annotated[int, Meta(ge=1, le=256)] = 32
    memory_bytes_max: Annotated[int, Meta(ge=0)] = 0
    step_aside: Literal["auto", "encrypted", "never"] = "encrypted"
    observe: bool = False


class BandwidthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Forecasts, predictions, and how migrations share a link.

    Attributes:
        share: hold migrations of several domains that share a link to rates; off leaves that to TCP.
        running_max: migrations on one link that get more than a trickle at once. One after the other they are done
            soonest in all.
        headroom_share: of a link's forecast, left for other traffic. Above 0 single migrations are held to a rate too.
        reserved_bytes_per_s: left for storage on every link, with the same effect.
        link_bytes_per_s_max: what migrations may use of any link; 0 is what it carries.
        dirty_rate_interval_s: every running domain's dirty rate is measured that often (a second of page sampling in
            QEMU each time), so that a prediction finds one; 0 is only when a prediction asks.
        load_interval_s: what the host and its guests use is read that often from libvirt's bulk statistics, less often
            where that takes more than a hundredth of the time; 0 is never.
        learn_interval_s: the models are trained on this host's history that often, at the lowest priority, where torch
            is installed; 0 is never.
    """

    share: bool = True
    running_max: Annotated[int, Meta(ge=1, le=256)] = 1
    headroom_share: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    reserved_bytes_per_s: Rate = 0.0
    link_bytes_per_s_max: Rate = 0.0
    dirty_rate_interval_s: Annotated[float, Meta(ge=0)] = 0.0
    load_interval_s: Annotated[float, Meta(ge=0)] = 10.0
    learn_interval_s: Annotated[float, Meta(ge=0)] = 0.0


class RecordConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recording of raw streams for `replay`. They hold the guest's memory: off unless a directory is set.

    Attributes:
        directory: where recordings go, mode 0600; empty is off.
        bytes_max: a recording stops there (the migration goes on).
    """

    directory: str = ""
    bytes_max: Annotated[int, Meta(ge=MIB, le=2**53)] = 8 * GIB


class PbftMemberConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host of the PBFT group.

    Attributes:
        name: the DNS name in its certificate.
        key: its public key, 64 hexadecimal digits, as `dwcp-migrate cluster key` shows it.
        operator: may change the members: whoever controls that host can take over the group.
    """

    name: Annotated[str, Meta(min_length=1, max_length=253)]
    key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    operator: bool = False


class PbftConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The group that certifies migrations between hosts in different hands; the same on every host but for the key.

    Attributes:
        mode: `auto` asks it where trust domains differ, `pbft` always, `off` never.
        cluster: random name of the group, 32 hexadecimal digits; in every signature.
        key: this host's secret key; `dwcp-migrate cluster key` makes it.
        members: hosts that decide; four bear one that fails or lies, seven bear two.
        clients: hosts that ask and do not decide; members ask anyway.
        epoch: of these members and clients; 0 is the group's first. Later ones that this host verified count more.
        timeout_s: how long a migration waits for the group.
        ticket_s_max: a ticket is void that long after it was given, so longer than the longest migration.
    """

    mode: Literal["auto", "pbft", "off"] = "auto"
    cluster: Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")] = ""
    key: Path = Path("/etc/dwcp-migrate/pbft.key")
    members: Annotated[tuple[PbftMemberConfig, ...], Meta(max_length=31)] = ()
    clients: Annotated[tuple[PbftMemberConfig, ...], Meta(max_length=512)] = ()
    epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    timeout_s: PositiveSeconds = 3.0
    ticket_s_max: Annotated[float, Meta(ge=1, le=604800)] = 86400.0

    @property
    def is_used(self) -> bool:
        """Whether there is a group, and it is to be asked."""
        return self.mode != "off" and bool(self.members)


class EtcdConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Access to this fleet's etcd, where `engine` is `etcd`.

    Attributes:
        prefix: of all keys; fleets that share an etcd need different ones, the hosts of a fleet the same.
        ca: certificates that etcd's is verified with; empty takes the fleet's CA and shows the host's certificate.
        certificate: shown to etcd where it asks for one, `key` is its secret key; both only count beside `ca`.
        username: of etcd's user, for one with authentication; empty logs in nowhere.
        password_file: its password; the first line, read at each login.
    """

    prefix: Annotated[str, Meta(pattern="^/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$", max_length=256)] = "/dwcp-migrate"
    ca: str = ""
    certificate: str = ""
    key: str = ""
    username: str = ""
    password_file: str = ""


class CoordinationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fleet's shared state: who runs what, and who may move it where.

    Attributes:
        engine: `raft` among the agents, or `etcd` for a fleet that runs one.
        require: refuse a migration that the fleet has not agreed to; otherwise, without a quorum, the two hosts agree
            by themselves, and the record says so. `across` refuses only migrations between trust domains that have no
            certificate; `auto` is `across` where a PBFT group is configured, else false.
        voters: names of the hosts with a vote at the first start, the same list on every host; empty: this host alone.
        discover: names of hosts that are found by the fleet's state and need no `[[peers]]` entry; `*.hv.example.net`
            stands for each name with one label before that domain. A host with such a name in a certificate of the
            fleet's CA may send and receive migrations. Empty: only hosts that are listed.
        addresses: that this host publishes to the fleet; empty takes those that its name resolves to here, and those
            that it reaches its listed peers from.
        trust_domain: hosts of one trust domain believe each other; across, a migration needs a certificate.
        labels: what the fleet should know of this host; placement takes `rack`, `datacentre` and `region` from here
            where its own settings name none.
        cpus: what this host offers to the fleet, `memory_bytes` likewise; 0 is all that it has.
        timeout_s: longest wait of a migration for the fleet's answer.
        ticket_s_max: longest time from the fleet's agreement to the first byte; then the ticket is void.
        election_ms: silence of the leader after which voters elect another one; each waits this long to twice as long.
        endpoints: of etcd's gateway, tried in turn.
        etcd: how it is reached.
        pbft: the group that decides across trust domains.
    """

    engine: Literal["raft", "etcd"] = "raft"
    require: bool | Literal["across", "auto"] = "auto"
    voters: tuple[str, ...] = ()
    discover: Annotated[tuple[NamePattern, ...], Meta(max_length=64)] = ()
    addresses: Annotated[tuple[Label, ...], Meta(max_length=16)] = ()
    trust_domain: Annotated[str, Meta(max_length=256)] = ""
    labels: Annotated[dict[Label, Label], Meta(max_length=64)] = {}
    cpus: Annotated[int, Meta(ge=0, le=65536)] = 0
    memory_bytes: Annotated[int, Meta(ge=0, le=2**53)] = 0
    timeout_s: PositiveSeconds = 2.0
    ticket_s_max: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    election_ms: Annotated[int, Meta(ge=50, le=10000)] = 300
    endpoints: Annotated[tuple[str, ...], Meta(min_length=1)] = ("http://127.0.0.1:2379",)
    etcd: EtcdConfig = EtcdConfig()
    pbft: PbftConfig = PbftConfig()

    @property
    def is_shared(self) -> bool:
        """Whether there is a fleet's state at all, and not only this host's."""
        return self.engine == "etcd" or bool(self.voters)

    def crosses(self, peer: PeerConfig) -> bool:
        """Whether a peer is of another trust domain than this host, by this host's configuration."""
        return peer.trust_domain != self.trust_domain

    def needs_certificate(self, peer: PeerConfig) -> bool:
        """Whether the PBFT group has to certify a migration to or from a peer."""
        return self.pbft.is_used and (self.pbft.mode == "pbft" or self.crosses(peer))

    def requires(self, peer: PeerConfig) -> bool:
        """Whether a migration to or from a peer is refused if only the two hosts agreed to it."""
        return self.require is True or (self.require is not False and self.needs_certificate(peer))


class PlacementConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Access of `place`, `migrate`, `drain HOST` and `rebalance` to the peers' libvirtds.

    Attributes:
        uri: of a host's libvirtd, `{name}` and `{address}` (its first one) filled in; this host and the other hosts'
            libvirtds both use it.
        address: this host's, for the others; empty is its name.
    """

    uri: str = "qemu+ssh://{address}/system"
    address: str = ""


class StoreScopeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Guests that may learn of each other's pages.

    Attributes:
        name: the same on every host.
        domains: names of domains, with `*` and `?` as a shell reads them.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128, pattern="^[^:]*$")]
    domains: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=1024)]


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pages that this host keeps of guests that migrated, so that they need not cross again (docs/known-pages.md).

    Attributes:
        bytes_max: for all of them; 0 is off: nothing is kept, and nothing is stated to other hosts.
        directory: where; empty is `store` in the runtime directory, which is memory. On a disk guests' memory lies in
            clear.
        keep_s: pages that were not used for so long are removed.
        scopes: a guest that no scope names is in a scope of its own.
    """

    bytes_max: Annotated[int, Meta(ge=0)] = 0
    directory: str = ""
    keep_s: PositiveSeconds = 86400.0
    scopes: Annotated[tuple[StoreScopeConfig, ...], Meta(max_length=1024)] = ()


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Access to the metrics; where `metrics_listen` is not on loopback, HTTPS and a password are advisable.

    Attributes:
        certificate: PEM file; with it the listener speaks HTTPS. Read at the start.
        key: PEM file of the certificate's key.
        username: demanded by HTTP's basic authentication; empty lets everyone read.
        password_file: the password; the first line, read at each request.
        status_page: show this host, its peers, migrations and their domains at `/`; read at the start. Without it only
            where the metrics are.
    """

    certificate: str = ""
    key: str = ""
    username: str = ""
    password_file: str = ""
    status_page: bool = True


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        name: this host's DNS name as in its certificate; empty takes it from there.
        libvirt_uri: the local libvirtd; empty runs without domain names and statistics.
        runtime_directory: control socket, hook socket; the hook reads it here too.
        state_directory: history.
        metrics_listen: `address:port` of Prometheus metrics; empty is off. Loopback by default.
        log_format: `json` lines or `text`.
    """

    name: str = ""
    libvirt_uri: str = "qemu:///system"
    runtime_directory: Path = Path("/run/dwcp-migrate")
    state_directory: Path = Path("/var/lib/dwcp-migrate")
    metrics_listen: str = "127.0.0.1:7803"
    log_format: Literal["json", "text"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics: MetricsConfig = MetricsConfig()
    peers: list[PeerConfig] = []
    domains: Annotated[tuple[DomainConfig, ...], Meta(max_length=1024)] = ()
    tls: TlsConfig = TlsConfig()
    intercept: InterceptConfig = InterceptConfig()
    link: LinkConfig = LinkConfig()
    encoding: EncodingConfig = EncodingConfig()
    policy: MigrationPolicy = MigrationPolicy()
    bandwidth: BandwidthConfig = BandwidthConfig()
    record: RecordConfig = RecordConfig()
    coordination: CoordinationConfig = CoordinationConfig()
    placement: PlacementConfig = PlacementConfig()
    store: StoreConfig = StoreConfig()

    @property
    def store_directory(self) -> Path:
        """Directory of the page store, if it is on."""
        return Path(self.store.directory) if self.store.directory else self.runtime_directory / "store"

    @property
    def control_socket(self) -> Path:
        """Unix socket of the control API (`dwcp-migrate status` and friends)."""
        return self.runtime_directory / "api.sock"

    @property
    def hook_socket(self) -> Path:
        """Unix socket that libvirt's hook announces to."""
        return self.runtime_directory / "hook.sock"


def same_name(one: str, other: str) -> bool:
    """Whether two spellings are one host's DNS name, as certificates compare them.

    Args:
        one: a DNS name; case and a last dot do not count.
        other: another spelling.
    """
    return one.rstrip(".").lower() == other.rstrip(".").lower()
