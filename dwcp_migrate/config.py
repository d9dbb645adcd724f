"""The agent's configuration: one typed TOML file, every default argued here and nowhere else.

Unknown keys and wrong types are refused with their path (`$.link.channels`). Nothing reads the file at import.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import ConfigError
from dwcp_migrate.units import GIB, MIB, PORT_MAX, PORT_MIN

DEFAULT_PATH = Path("/etc/dwcp-migrate/agent.toml")

Port = Annotated[int, Meta(ge=1, le=65535)]
PositiveSeconds = Annotated[float, Meta(gt=0)]


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another hypervisor whose agent may receive our migrations and send us theirs.

    Attributes:
        name: the DNS name in its certificate; the only name that it may prove.
        addresses: its addresses as migrations dial them (what its host name resolves to here).
        port: its agent's link port.
    """

    name: str
    addresses: Annotated[list[str], Meta(min_length=1)]
    port: Port = 7802


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files; `dwcp-migrate cert` makes them where no PKI exists. Read anew for each migration."""

    ca: Path = Path("/etc/dwcp-migrate/tls/ca.pem")
    certificate: Path = Path("/etc/dwcp-migrate/tls/host.pem")
    key: Path = Path("/etc/dwcp-migrate/tls/host.key")


class Intercept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How QEMU's connections reach the agent.

    Attributes:
        redirect: nftables redirect of libvirt's ports towards the peers; off for `--migrateuri` only.
        port: where redirected connections arrive, on loopback only.
        explicit_port: where `--migrateuri tcp://127.0.0.1:PORT` arrives; 0 is off. It needs `explicit_peer`.
        explicit_peer: the peer that the explicit form migrates to.
        mark: socket mark of the agent's own connections, which the redirect lets pass.
        port_min: first port of libvirt's range (`migration_port_min` of qemu.conf on the destination).
        port_max: last port of it.
    """

    redirect: bool = True
    port: Port = 7801
    explicit_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    explicit_peer: str = ""
    mark: Annotated[int, Meta(ge=1, le=0x7FFFFFFF)] = 0xD3C9
    port_min: Port = PORT_MIN
    port_max: Port = PORT_MAX


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agents' link for one migration.

    Attributes:
        listen: address of the link port; peers must reach it.
        port: the link port.
        channels: TCP channels of a migration; 0 grows while the measured rate still rises.
            The longer and lossier the link, the less one flow carries.
        channels_max: bound of the above.
        congestion_control: set on every channel; empty keeps the kernel's default.
        connect_timeout_s: probe of a peer's agent before a migration passes through unaccelerated.
        negative_cache_s: how long a silent peer is not probed again.
        loss_s_max: how long a migration waits for a link that was cut before it fails as a broken TCP does.
        in_flight_ms_max: raw bytes accepted from QEMU and not yet taken by the other QEMU, in time at the
            current rate beyond one round trip. They add to downtime.
    """

    listen: str = "0.0.0.0"  # noqa: S104 - peers dial in; mTLS is the gate
    port: Port = 7802
    channels: Annotated[int, Meta(ge=0, le=512)] = 0
    channels_max: Annotated[int, Meta(ge=1, le=512)] = 64
    congestion_control: str = ""
    connect_timeout_s: PositiveSeconds = 1.5
    negative_cache_s: PositiveSeconds = 30.0
    loss_s_max: PositiveSeconds = 120.0
    in_flight_ms_max: Annotated[int, Meta(ge=1, le=5000)] = 50


class Encoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done to the pages.

    Attributes:
        cache_bytes: last versions sent, kept on both hosts for deltas; the smaller of both ends' values counts.
        workers: threads that compress (source) or decompress (destination); 0 is the number of usable cores.
        codec: `auto` follows the link (none, lz4, zstd by level), the others pin it.
        level: zstd level when the codec is pinned to zstd.
        level_max: ceiling of `auto`; beyond 6 CPU grows much faster than the gain.
    """

    cache_bytes: Annotated[int, Meta(ge=0)] = 1 * GIB
    workers: Annotated[int, Meta(ge=0, le=64)] = 0
    codec: Literal["auto", "none", "lz4", "zstd"] = "auto"
    level: Annotated[int, Meta(ge=1, le=19)] = 1
    level_max: Annotated[int, Meta(ge=1, le=19)] = 6


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is allowed.

    Attributes:
        require_announcement: dial a waiting QEMU only after this host's hook or libvirt announced a migration.
        announcement_s_max: how long an announcement stays good.
        hook_strict: a hook that cannot reach its agent fails the migration instead of letting it run plain.
        sessions_max: migrations at once, each side counted.
    """

    require_announcement: bool = True
    announcement_s_max: PositiveSeconds = 120.0
    hook_strict: bool = False
    sessions_max: Annotated[int, Meta(ge=1, le=256)] = 32


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recording of raw streams for `replay`. They hold the guest's memory: off unless a directory is set.

    Attributes:
        directory: where recordings go, mode 0600; empty is off.
        bytes_max: a recording stops there (the migration goes on).
    """

    directory: str = ""
    bytes_max: Annotated[int, Meta(ge=MIB)] = 8 * GIB


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        name: this host's DNS name as in its certificate; empty is the system's host name.
        libvirt_uri: the local libvirtd; empty runs without domain names and statistics.
        runtime_directory: control socket, hook socket.
        state_directory: history.
        metrics_listen: `address:port` of Prometheus metrics; empty is off. Loopback by default.
        log_format: `json` lines or `text`.
    """

    name: str = ""
    libvirt_uri: str = "qemu:///system"
    runtime_directory: Path = Path("/run/dwcp-migrate")
    state_directory: Path = Path("/var/lib/dwcp-migrate")
    metrics_listen: str = "127.0.0.1:9177"
    log_format: Literal["json", "text"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    peers: list[Peer] = []
    tls: Tls = Tls()
    intercept: Intercept = Intercept()
    link: Link = Link()
    encoding: Encoding = Encoding()
    policy: Policy = Policy()
    record: Record = Record()

    @property
    def control_socket(self) -> Path:
        """Unix socket of the control API (`dwcp-migrate status` and friends)."""
        return self.runtime_directory / "api.sock"

    @property
    def hook_socket(self) -> Path:
        """Unix socket that libvirt's hook announces to."""
        return self.runtime_directory / "hook.sock"


def _path_in_toml(value: type, raw: object) -> object:
    if value is Path and isinstance(raw, str):
        return Path(raw)
    raise TypeError(f"unsupported type {value}")


def parse(text: str) -> Config:
    """Read a configuration from TOML text.

    Raises:
        ConfigError: not TOML, an unknown key, a wrong type or a value out of range; the message names its path.
    """
    try:
        config = msgspec.convert(tomllib.loads(text), Config, dec_hook=_path_in_toml)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"configuration: {error}", hint="see docs/configuration.md") from error
    _check(config)
    return config


def load(path: Path) -> Config:
    """Read the configuration file.

    Raises:
        ConfigError: unreadable, or as `parse` says.
    """
    try:
        return parse(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="give --config FILE") from error


def _check(config: Config) -> None:
    """Hold the rules that join several keys."""
    names = [peer.name for peer in config.peers]
    if len(set(names)) != len(names):
        raise ConfigError("configuration: two peers share a name", hint="peer names are certificate names")
    addresses = [address for peer in config.peers for address in peer.addresses]
    if len(set(addresses)) != len(addresses):
        raise ConfigError("configuration: two peers share an address")
    if config.intercept.port_min > config.intercept.port_max:
        raise ConfigError("configuration: intercept.port_min is above intercept.port_max")
    if config.link.channels > config.link.channels_max:
        raise ConfigError("configuration: link.channels is above link.channels_max")
    if config.intercept.explicit_port and config.intercept.explicit_peer not in names:
        raise ConfigError(
            "configuration: intercept.explicit_port needs intercept.explicit_peer",
            hint="name one of the peers",
        )
