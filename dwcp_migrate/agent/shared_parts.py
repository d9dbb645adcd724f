"""The parts that all rooms of the agent share, made once at its start."""

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from dwcp_migrate.agent.context import Runtime, is_own_address
from dwcp_migrate.agent.disablement import Disablement
from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.agent.http import host_facts as facts
from dwcp_migrate.agent.page_store import PageStore
from dwcp_migrate.agent.peers.client import ControlClient
from dwcp_migrate.agent.peers.directory import PeerDirectory, SilentPeers
from dwcp_migrate.agent.peers.limits import PeerLimits
from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.memory_budget import MemoryBudget
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.agent.tracking.running_store import RunningStore
from dwcp_migrate.agent.tracking.uncaught import UncaughtMigrations
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import Config
from dwcp_migrate.dataplane.process_pool import DataProcessPool
from dwcp_migrate.hypervisor.announcements import Announcements
from dwcp_migrate.hypervisor.base import DomainWatcher
from dwcp_migrate.transport.tls import make_context


def tls_context(side: Literal["client", "server"], config: Config) -> ssl.SSLContext:
    """Make the TLS context of one side of a connection between agents.

    Args:
        side: which end of the connection this is.
        config: names the files, which are read now.

    Raises:
        ConfigError: a file cannot be read, or does not fit the others.
    """
    return make_context(side, config.tls.ca, config.tls.certificate, config.tls.key)


def make_runtime(
    config: Config,
    watcher: DomainWatcher | None,
    worker: Sequence[str],
    keep_translation: Callable[[], list[socket.socket]],
) -> Runtime:
    """Make the parts that all rooms of the agent share.

    Args:
        config: what the agent runs with.
        watcher: libvirt; None runs without.
        worker: how a data process is started.
        keep_translation: see `Runtime`.
    """
    name = config.name or facts.own_name(config.tls, socket.gethostname())
    disk = DiskThread()
    ledger = MigrationRegistry(
        MigrationHistory(config.state_directory, disk=disk), wall_clock, RunningStore(config.runtime_directory), disk
    )
    runtime = Runtime(
        config=config,
        name=name,
        directory=PeerDirectory(config.peers, name, is_own_address),
        silent=SilentPeers(config.link.negative_cache_s),
        announcements=Announcements(config.policy.announcement_s_max),
        ledger=ledger,
        spares=DataProcessPool(worker, runtime_directory=config.runtime_directory),
        control=ControlClient(
            lambda: tls_context("client", runtime.config), config.link.connect_timeout_s, config.intercept.mark
        ),
        domains=DomainTracker(watcher, ledger),
        memory=MemoryBudget(lambda: runtime.config.policy.memory_bytes_max, lambda: runtime.config.policy.sessions_max),
        disk=disk,
        keep_translation=keep_translation,
        store=PageStore(lambda: runtime.config),
        limits=PeerLimits(config.state_directory),
        disabled=Disablement(config.state_directory),
    )
    ledger.observe(runtime.memory.observe)
    return runtime


def make_uncaught(runtime: Runtime, left_alone: Callable[[], Mapping[str, str]]) -> UncaughtMigrations:
    """Make the keeper of records of migrations that are not caught.

    Args:
        runtime: the shared parts; its configuration and its peers are those of the moment.
        left_alone: why nothing is redirected towards peers now, by name.
    """
    return UncaughtMigrations(
        lambda: runtime.config, lambda: runtime.directory, left_alone, runtime.ledger, runtime.domains
    )
