"""State that all rooms of the agent share: configuration in force, registry, data processes, peers, libvirt.

The rule: only `daemon` makes it and only a reload changes it, by replacing `config` and `directory` as a whole; work
that began with the old ones goes on with them.
"""

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from dwcp_migrate.agent.disablement import Disablement
from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.agent.page_store import PageStore
from dwcp_migrate.agent.peers.client import ControlClient
from dwcp_migrate.agent.peers.directory import PeerDirectory, SilentPeers
from dwcp_migrate.agent.peers.limits import PeerLimits, lowest_limit
from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker
from dwcp_migrate.agent.tracking.memory_budget import MemoryBudget
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.agent.tracking.warm_book import WarmBook
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import Config, PeerConfig
from dwcp_migrate.config.choices import domain_limit, peer_limit
from dwcp_migrate.dataplane.process_pool import DataProcessPool
from dwcp_migrate.dataplane.worker_threads import workers_here
from dwcp_migrate.errors import ConfigError
from dwcp_migrate.hypervisor.announcements import Announcements
from dwcp_migrate.logs import get_logger
from dwcp_migrate.net import family_of
from dwcp_migrate.protocol.control import DomainName, Open, Opened
from dwcp_migrate.protocol.session_memory import SessionMemory
from dwcp_migrate.protocol.worker import Departure, SessionOptions, StoreOptions
from dwcp_migrate.tasks import Tasks
from dwcp_migrate.units import format_rate

NO_DEPARTURE: Final = Departure()

log = get_logger(component="agent")


@dataclass(frozen=True, slots=True)
class Recording:
    """The next migration from here is recorded in `directory`; only one of `domain`, unless that is empty."""

    directory: str
    domain: str


@dataclass(slots=True)
class Runtime:
    """The shared parts.

    Attributes:
        keep_translation: makes what a data process has to hold, see `redirect.Redirection.keep_translation`.
        migrations: those that run, of both sides, ending ones included.
        warm_ups: from this host.
        warming: warm-ups that run, of both sides.
    """

    config: Config
    name: str
    directory: PeerDirectory
    silent: SilentPeers
    announcements: Announcements
    ledger: MigrationRegistry
    spares: DataProcessPool
    control: ControlClient
    domains: DomainTracker
    memory: MemoryBudget
    disk: DiskThread
    keep_translation: Callable[[], list[socket.socket]]
    recording: Recording | None = None
    store: PageStore = field(default_factory=lambda: PageStore(Config))
    limits: PeerLimits = field(default_factory=PeerLimits)
    disabled: Disablement = field(default_factory=Disablement)
    migrations: Tasks = field(default_factory=Tasks)
    warm_ups: WarmBook = field(default_factory=WarmBook)
    warming: Tasks = field(default_factory=Tasks)

    async def cancel_work(self) -> None:
        """Cancel what this agent carries; data processes of migrations go on."""
        await self.migrations.cancel()
        await self.warming.cancel()

    def arm_recording(self, directory: str, domain: str) -> str:
        """Record the next migration from here; returns what was arranged, for people.

        Args:
            directory: where, by its whole path; empty disarms it.
            domain: only one of this domain, if that is given.

        Raises:
            ConfigError: there is no such directory.
        """
        if directory and not (Path(directory).is_absolute() and Path(directory).is_dir()):
            raise ConfigError(f"{directory} is no directory", hint="name one that exists, by its whole path")
        self.recording = Recording(directory, domain) if directory else None
        log.warning("recording", armed=bool(directory), domain=domain, directory=directory)
        whose = f"of {domain}" if domain else "from this host"
        return f"the next migration {whose} is recorded in {directory}" if directory else "nothing is recorded"

    def take_recording(self, domains: Iterable[DomainName]) -> str:
        """Take the directory to record a migration in that may be of one of `domains`, if any; it serves once."""
        armed = self.recording
        if armed is None or (armed.domain and armed.domain not in {found.name for found in domains}):
            return self.config.record.directory
        self.recording = None
        return armed.directory

    def configured_ceiling(self, peer: PeerConfig | None) -> float:
        """The lower of a peer's own limit at this hour and that of any link, in bytes a second; 0 is none."""
        return lowest_limit(
            self.config.bandwidth.link_bytes_per_s_max, peer_limit(peer, local_minute(wall_clock())).bytes_per_s
        )

    def domain_ceiling(self, domain: str) -> float:
        """The limit of a domain's own at this hour, in bytes a second; 0 is none."""
        return domain_limit(self.config, domain, local_minute(wall_clock())).bytes_per_s

    def limit_words(self, peer: str, domain: str) -> str:
        """Say what holds a migration to a rate; empty where nothing does.

        Args:
            peer: name of where it goes.
            domain: name of its domain; empty where it is not known.
        """
        now = wall_clock()
        whole, commanded = self.config.bandwidth.link_bytes_per_s_max, self.limits.of_peer(peer, now)
        said = [
            f"{format_rate(whole)} by bandwidth.link_bytes_per_s_max" if whole else "",
            peer_limit(self.directory.by_name(peer), local_minute(now)).by,
            domain_limit(self.config, domain, local_minute(now)).by,
            f"{format_rate(commanded.bytes_per_s)} by `dwcp-migrate limit`" if commanded else "",
        ]
        return "; ".join(one for one in said if one)

    def link_ceiling(self, peer: str) -> float:
        """The limit in force of the link to a peer, configured and commanded, in bytes a second; 0 is none."""
        commanded = self.limits.of_peer(peer, wall_clock())
        return lowest_limit(
            self.configured_ceiling(self.directory.by_name(peer)), commanded.bytes_per_s if commanded else 0.0
        )

    def departure(self, peer: PeerConfig) -> Departure:
        """Ways out of the channels that this host allows; in clear never to hosts in other hands."""
        coordination, policy = self.config.coordination, self.config.policy.step_aside
        is_foreign = coordination.crosses(peer) or coordination.needs_certificate(peer)
        return Departure(in_clear=policy == "auto" and not is_foreign, in_tls=policy != "never")

    def agreed_departure(self, peer: PeerConfig, said: Open | Opened) -> Departure:
        """Ways out of the channels that both hosts allow.

        Args:
            peer: the other host.
            said: what its agent said of this migration.
        """
        mine = self.departure(peer)
        return Departure(in_clear=mine.in_clear and said.may_stand_aside, in_tls=mine.in_tls and said.may_leave_in_tls)

    def session_options(
        self,
        memory: SessionMemory,
        channels_max: int,
        record_directory: str,
        store: StoreOptions | None,
        *,
        departure: Departure = NO_DEPARTURE,
        codec: str = "",
    ) -> SessionOptions:
        """Build the options of a data process.

        Args:
            memory: sizes that both agents agreed to.
            channels_max: limit that both agents agreed to.
            record_directory: where the raw stream is recorded; empty for no recording.
            store: page store of this migration; None without one.
            departure: how QEMU's connections may leave the channels; a warm-up has none.
            codec: in the place of the configured one; empty leaves that.
        """
        config = self.config
        channels_max = min(channels_max, memory.channels_max)
        return SessionOptions(
            ca=str(config.tls.ca),
            certificate=str(config.tls.certificate),
            key=str(config.tls.key),
            granted_bytes=memory.granted_bytes,
            cache_bytes=memory.cache_bytes,
            window_bytes=memory.window_bytes,
            table_bytes=memory.table_bytes,
            is_window_agreed=memory.is_agreed,
            channels=min(config.link.channels, channels_max),
            channels_max=channels_max,
            congestion_control=config.link.congestion_control,
            connect_timeout_s=config.link.connect_timeout_s,
            loss_s_max=config.link.loss_s_max,
            in_flight_ms_max=config.link.in_flight_ms_max,
            workers=min(workers_here(config.encoding.workers), memory.workers_max),
            codec=codec or config.encoding.codec,
            level=config.encoding.level,
            level_max=config.encoding.level_max,
            record_directory=record_directory,
            record_bytes_max=config.record.bytes_max,
            store=store,
            departure=departure,
        )


def local_minute(at: float) -> int:
    """The minute of the day, by this host's time zone, of seconds since the epoch."""
    here = time.localtime(at)
    return here.tm_hour * 60 + here.tm_min


def is_own_address(address: str) -> bool:
    """Whether `address` is this host's: the kernel would answer from that very address.

    A name is nobody's address: it may come from a peer, and looking it up would block.
    """
    try:
        wanted = ip_address(address)
    except ValueError:
        return False
    try:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return ip_address(probe.getsockname()[0]) == wanted
    except OSError:
        return False
