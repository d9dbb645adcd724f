"""The agent: its parts put together, its life from start to stop.

The rule: connections are redirected only while every part runs. The redirect is armed last and disarmed first, and
migrations that run go on without it: their data processes report to the next agent.

    start    control socket, spare, adoption, link port, hook socket, libvirt, intake ports, redirect; then READY=1
    SIGHUP   configuration read again; a wrong one is refused, the old one stays
    SIGTERM  disarm, refuse, wait up to STOP_S_MAX for migrations that begin or end at this moment, leave the others
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from dwcp_migrate import __version__
from dwcp_migrate.agent.accept_loop import AcceptLoop, open_listener
from dwcp_migrate.agent.authorization.certificates import CertificateIssuer
from dwcp_migrate.agent.authorization.fleet_members import FleetMembers
from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.authorization.ownership import OwnershipCheck
from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer
from dwcp_migrate.agent.authorization.reconciler import TicketReconciler
from dwcp_migrate.agent.context import is_own_address
from dwcp_migrate.agent.effective import ConfigurationInForce, exempted
from dwcp_migrate.agent.forecasting.load_watch import LoadWatch
from dwcp_migrate.agent.forecasting.loop import ForecastLoop
from dwcp_migrate.agent.http import host_facts as facts
from dwcp_migrate.agent.http.handlers.check import CheckHandlers
from dwcp_migrate.agent.http.handlers.cluster import ClusterHandlers
from dwcp_migrate.agent.http.handlers.limit import LimitHandlers
from dwcp_migrate.agent.http.handlers.plan import PlanHandlers
from dwcp_migrate.agent.http.handlers.prediction import PredictionHandlers
from dwcp_migrate.agent.http.handlers.recap import RecapHandlers
from dwcp_migrate.agent.http.handlers.warm import WarmHandlers
from dwcp_migrate.agent.http.handlers.watch import WatchHandlers
from dwcp_migrate.agent.http.metrics_server import listen_for_metrics, metrics_application
from dwcp_migrate.agent.http.server import Api, HttpServer
from dwcp_migrate.agent.http.status import StatusSources, StatusViews
from dwcp_migrate.agent.intake.hook_server import HookServer
from dwcp_migrate.agent.intake.hook_trial import HookTrial
from dwcp_migrate.agent.intake.link import LinkIntake
from dwcp_migrate.agent.intake.listeners import RedirectIntake, explicit_intake
from dwcp_migrate.agent.intake.loopback import LOOPBACK, LoopbackListeners
from dwcp_migrate.agent.intake.redirect import Redirection
from dwcp_migrate.agent.migrations.about_host import AboutHost
from dwcp_migrate.agent.migrations.admission import Incoming
from dwcp_migrate.agent.migrations.adoption import Adoption
from dwcp_migrate.agent.migrations.dispatcher import Outgoing
from dwcp_migrate.agent.migrations.left_alone import PeersLeftAlone
from dwcp_migrate.agent.pbft.group import PbftGroup
from dwcp_migrate.agent.peers.addresses import PeerAddresses
from dwcp_migrate.agent.peers.directory import PeerDirectory, SilentPeers
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.agent.peers.server import ControlServer
from dwcp_migrate.agent.peers.watch import PeerWatch
from dwcp_migrate.agent.plans.book import PlanBook
from dwcp_migrate.agent.plans.carrier import PlanCarrier
from dwcp_migrate.agent.plans.fleet_watcher import FleetWatcher
from dwcp_migrate.agent.plans.warmer import PlanWarmer
from dwcp_migrate.agent.plans.watch_book import WatchBook
from dwcp_migrate.agent.shared_parts import make_runtime, make_uncaught, tls_context
from dwcp_migrate.agent.systemd import Notifier
from dwcp_migrate.api.schema import AgentStatus, Done, Facts, Measured, Peers, Predicted, RunningConfig
from dwcp_migrate.api.words import say_running
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import Config, PeerConfig, load
from dwcp_migrate.config.compare import keeping_listeners
from dwcp_migrate.dataplane.process_pool import COMMAND
from dwcp_migrate.errors import ConfigError
from dwcp_migrate.hypervisor.base import DomainWatcher, Interceptor, WatcherState
from dwcp_migrate.hypervisor.cgroups import ForeignServices, mount_point
from dwcp_migrate.hypervisor.hook import Announce
from dwcp_migrate.logs import get_logger, set_level
from dwcp_migrate.protocol.control import PBFT_SESSION, STATE_SESSION
from dwcp_migrate.protocol.load import FleetLoad
from dwcp_migrate.tasks import Tasks, wait_within
from dwcp_migrate.transport.tls import ContextCache
from dwcp_migrate.units import count_nouns

STOP_S_MAX: Final = 20.0
"""For migrations that have no data process yet, or none any more, on SIGTERM: the first would fail with this agent, the
others only lack libvirt's report. systemd's TimeoutStopSec must be longer."""

STOP_LOOK_S: Final = 0.1
"""Interval at which `stop` looks for such migrations."""

TICK_S: Final = 2.0
"""Interval at which the redirect is checked and its life prolonged."""

log = get_logger(component="agent")


class Agent:
    """The agent.

    Args:
        config: what it runs with.
        path: the file that a reload reads.
        interceptor: opens the redirect's interface in the kernel.
        watcher: libvirt; None runs without.
        notifier: the service manager.
        worker: how a data process is started.
    """

    def __init__(
        self,
        config: Config,
        path: Path,
        *,
        interceptor: Callable[[], Interceptor],
        watcher: DomainWatcher | None,
        notifier: Notifier,
        worker: Sequence[str] = COMMAND,
    ) -> None:
        self._configured = ConfigurationInForce(str(path), config, wall_clock())
        config, exempt = exempted(config)
        self._path = path
        self._notifier = notifier
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._loops = Tasks()
        self._listeners: dict[str, AcceptLoop] = {}
        self._http: dict[str, HttpServer] = {}
        self._foreign = ForeignServices(mount_point())
        self._redirection = Redirection(interceptor, exempt, self._foreign.groups)
        self._libvirt_was: WatcherState | None = None
        self.runtime = make_runtime(config, watcher, worker, self._redirection.keep_translation)
        self.ledger = self.runtime.ledger
        self._addresses = PeerAddresses(self.runtime.name, is_own_address, self._addresses_changed)
        self.coordination = ClusterStateClient(
            self.runtime, lambda side: tls_context(side, self.runtime.config), self._rejected("state")
        )
        self._members = FleetMembers(self.runtime, self.coordination, self._peers_found)
        self.group = PbftGroup(self.runtime, lambda side: tls_context(side, self.runtime.config))
        self.certifying = CertificateIssuer(self.runtime, self.group)
        plans, watch = self._books()
        self._carrier = PlanCarrier(plans, path, lambda: self.ledger.state)
        self._watch = FleetWatcher(watch, path, lambda: self.ledger.state)
        self.permits = MigrationAuthorizer(self.runtime, self.coordination, self.certifying)
        self._recovery = TicketReconciler(self.runtime, self.coordination, self.permits)
        self.outgoing = Outgoing(self.runtime, self.permits)
        self._warmer = PlanWarmer(plans, self.outgoing.warm_ups)
        self._loads = LoadWatch(self.runtime)
        self._hook_trial = HookTrial(lambda: self._views.hook_last_at)
        ownership = OwnershipCheck(self.runtime, self.coordination)
        about = self._about_host()
        self.incoming = Incoming(self.runtime, self.permits, ownership, self._recovery, self.outgoing, about)
        self._adoption = Adoption(self.runtime, self.permits, self.outgoing, self.incoming)
        self._loopback = self._redirect_listeners(config.intercept.port)
        self._left_alone = PeersLeftAlone(self.runtime)
        self._uncaught = make_uncaught(self.runtime, lambda: self._left_alone.reasons)
        self._peer_watch = PeerWatch(lambda: [peer.name for peer in self.runtime.directory.all()], self._answers)
        self._planner = ForecastLoop(self.runtime, self.outgoing.pace)
        self._predictions = PredictionHandlers(self.runtime, self._planner)
        self._views = StatusViews(self.runtime, self._redirection, self._loopback, self._sources())
        self.api_parts = (self._cluster_handlers(), PlanHandlers(plans), WatchHandlers(watch), *self._peer_handlers())
        self._control = ControlServer(self._identify, self.incoming.answer, self._rejected("link"))
        self._link = self._link_intake()
        self._hook = HookServer(config.hook_socket, self._announced, self._rejected("hook"))

    def _link_intake(self) -> LinkIntake:
        return LinkIntake(
            partial(self._server_context, ContextCache("server")),
            self._control,
            self.incoming.channel,
            {STATE_SESSION: self.coordination.adopt, PBFT_SESSION: self.group.adopt},
            lambda address: self.runtime.directory.by_address(address) is not None,
            self._rejected("link"),
        )

    def _peer_handlers(self) -> tuple[CheckHandlers, RecapHandlers, LimitHandlers, WarmHandlers]:
        check = CheckHandlers(self.runtime, self._views, self._predictions.links, self._planner.link_carried)
        return check, RecapHandlers(self.runtime), LimitHandlers(self.runtime), WarmHandlers(self.outgoing.warm_ups)

    def _about_host(self) -> AboutHost:
        return AboutHost(
            self.runtime,
            __version__,
            is_own_address,
            self.group.successor,
            self._loads.part,
            self._hook_trial.run,
            lambda: facts.certificate("host", self.runtime.config.tls.certificate),
        )

    def _cluster_handlers(self) -> ClusterHandlers:
        runtime, view = self.runtime, self.certifying.view
        return ClusterHandlers(runtime.name, lambda: runtime.config.coordination, self.coordination, view, self.group)

    def _books(self) -> tuple[PlanBook, WatchBook]:
        runtime = self.runtime
        own = (runtime.config.state_directory, runtime.name)
        is_shared = partial(lambda: runtime.config.coordination.is_shared)
        return PlanBook(self.coordination, is_shared, *own), WatchBook(self.coordination, is_shared, *own)

    def _redirect_listeners(self, port: int) -> LoopbackListeners:
        rejected = self._rejected("redirect")
        return LoopbackListeners(port, RedirectIntake(self._redirected, self._foreign.opened, rejected).take, rejected)

    def _server_context(self, kept: ContextCache) -> ssl.SSLContext:
        tls = self.runtime.config.tls
        return kept.get(tls.ca, tls.certificate, tls.key)

    def _sources(self) -> StatusSources:
        return StatusSources(
            self._listening,
            self._recovery.facts,
            lambda: self.coordination.latest,
            self.certifying.group_status,
            self._predictions.links,
            self._loads.own,
            lambda: self._members.ports_not_redirected,
            self._configured.status,
            lambda: self._peer_watch.up,
        )

    async def _answers(self, name: str) -> bool:
        peer = self.runtime.directory.by_name(name)
        return peer is not None and bool(await find_address(self.runtime.control, peer, candidate_addresses(peer)))

    def _identify(self, names: list[str]) -> PeerConfig | None:
        return self.runtime.directory.by_names(names)  # the directory of now: a reload replaces it

    def _rejected(self, listener: str) -> Callable[[str], None]:
        return lambda reason: self.ledger.count("rejected", f"{listener} {reason}")

    # -- life

    async def run(self) -> None:
        """Start, serve until `stop`, and end.

        Raises:
            HypervisorError: a socket that it cannot do without is not to be had.
        """
        try:
            await self.start()
            self._notifier.ready("carrying migrations")
            log.info("agent started", name=self.runtime.name, version=__version__, pid=os.getpid())
            await self._stopping.wait()
            await self._drain_and_wait()
        finally:
            await self.close()

    async def start(self) -> None:
        """Put everything up; the redirect last."""
        config = self.runtime.config
        with contextlib.suppress(OSError):  # what needs the directory says so
            config.runtime_directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        if self.runtime.disabled.since is not None:
            self.ledger.set_state("draining")
            log.warning(self.runtime.disabled.words)
        api = self._http["control"] = HttpServer(Api(self).application())
        await api.listen_unix(config.control_socket)
        self.runtime.spares.start()
        await self._adoption.start()
        self._accept("link", config.link.listen, config.link.port, self._link.take)
        await self._hook.start()
        await self.runtime.domains.start()
        await self.coordination.start()
        await self.group.start()
        self._recovery.start()
        self._members.start()
        self.runtime.directory = self._addresses.use(config.peers)
        self._addresses.start()
        self._listen_for_connections()
        if config.metrics_listen:
            server = self._http["metrics"] = HttpServer(
                metrics_application(self.status, self.ledger.recent, config.metrics)
            )
            self._views.metrics_error = await listen_for_metrics(server, config.metrics_listen, config.metrics)
        loops = {"tick": self._tick, "forecasts": self._planner.run, "loads": self._loads.run}
        loops |= {"peers": self._peer_watch.run, "plans": self._carrier.run, "watch": self._watch.run}
        loops |= {"store": self.runtime.store.keep_tidy, "warmer": self._warmer.run}
        for name, loop in loops.items():
            self._loops.keep_running(name, loop)
        self._uncaught.start()

    def _listen_for_connections(self) -> None:
        intercept = self.runtime.config.intercept
        if intercept.explicit_port:
            take = explicit_intake(
                self.outgoing.accepted,
                lambda: self.runtime.directory.by_name(self.runtime.config.intercept.explicit_peer),
                intercept.explicit_port,
            )
            self._accept("explicit", LOOPBACK[socket.AF_INET], intercept.explicit_port, take)

    def _accept(self, use: str, address: str, port: int, take: Callable[[socket.socket], None]) -> None:
        self._listeners[use] = AcceptLoop(open_listener(address, port, late=True), take, self._rejected(use)).start()

    def _redirected(self, sock: socket.socket, address: str, port: int, foreign: bool) -> None:  # noqa: FBT001 - told
        self.outgoing.accepted(sock, address, port, self.runtime.directory.by_address(address), foreign=foreign)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        pings_due = loop.time()
        while True:
            try:
                self._hold_redirect()
                self._watch_libvirt()
            except Exception:  # a fault of ours in one look must not end all later ones
                log.exception("look at redirect and libvirt failed")
            if self._notifier.watchdog_s and loop.time() >= pings_due:
                self._notifier.watchdog()
                pings_due = loop.time() + self._notifier.watchdog_s
            await asyncio.sleep(min(TICK_S, self._notifier.watchdog_s or TICK_S))

    def _watch_libvirt(self) -> None:
        """Log libvirtd's coming and going."""
        state = self.runtime.domains.state()
        if state != self._libvirt_was and self.runtime.config.libvirt_uri:
            say = log.info if state.connected else log.warning
            say("libvirt", connected=state.connected, version=state.version, error=state.error)
        self._libvirt_was = state

    def _hold_redirect(self) -> None:
        runtime = self.runtime
        intercept = runtime.config.intercept
        if intercept.redirect:
            self._loopback.hold()
        wanted, alone = self._views.redirect_wanted(), self._left_alone.addresses()
        self._redirection.hold(intercept, runtime.directory, self._loopback.families, wanted=wanted, left_alone=alone)

    def _peers_found(self, peers: tuple[PeerConfig, ...]) -> None:
        self._addresses.follow([*self.runtime.config.peers, *peers])

    def _addresses_changed(self, directory: PeerDirectory) -> None:
        self.runtime.directory = directory
        self._hold_redirect()

    def stop(self) -> None:
        """Begin to stop; `run` returns when it is done. A second call does not wait for anything."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    async def _drain_and_wait(self) -> None:
        self.ledger.set_state("stopping")
        self._hold_redirect()
        migrations = self.runtime.migrations
        self._notifier.stopping(say_running(migrations.count))
        log.info("agent stopping", migrations=migrations.count)
        deadline = steady_clock() + STOP_S_MAX
        while self._needed() and not self._hurried.is_set() and steady_clock() < deadline:
            with contextlib.suppress(TimeoutError):
                await wait_within(self._hurried.wait(), STOP_LOOK_S)
        log.info("migrations go on without an agent", migrations=migrations.count)

    def _needed(self) -> int:
        """Migrations for which something is lost, or late, if this agent ends now."""
        carried = self.outgoing.carried + self.incoming.carried
        return self.runtime.migrations.count - carried

    async def close(self) -> None:
        """Free everything; data processes that carry a migration go on."""
        self._redirection.close()
        if self._loops.count:
            await self._loops.cancel()
            await self._planner.close()
            await self._loads.close()
        await self._adoption.close()
        await self.runtime.cancel_work()
        await self._addresses.close()
        self._loopback.close()
        self._foreign.close()
        for listener in self._listeners.values():
            listener.close()
        await self._link.close()
        await self._members.close()
        await self._recovery.close()
        await self.group.close()
        await self.coordination.close()
        await self._hook.close()
        self.ledger.close()
        await self.runtime.domains.close()
        self.runtime.control.forget()
        await self.runtime.spares.close()
        for server in self._http.values():
            await server.close()
        await self.runtime.disk.close()
        self.runtime.config.control_socket.unlink(missing_ok=True)

    # -- what the control API serves, see `server.Served`

    def status(self) -> AgentStatus:
        """See `api.Status`."""
        return self._views.status()

    async def peers(self) -> Peers:
        """See `api.Peers`."""
        return await self._views.peers()

    async def facts(self) -> Facts:
        """See `api.Facts`."""
        return await self._views.facts()

    def _listening(self) -> dict[str, bool]:
        return {
            **{use: loop.accepting for use, loop in self._listeners.items()},
            **{use: server.listening for use, server in self._http.items()},
            "hook": self._hook.listening,
        }

    def drain(self) -> Done:
        """No new migrations: the redirect goes, peers are refused, what runs goes on."""
        if self.ledger.state == "running":
            self.ledger.set_state("draining")
            self.coordination.change_draining(draining=True)
        self._hold_redirect()
        return Done(state=self.ledger.state, message=say_running(self.runtime.migrations.count))

    def undrain(self) -> Done:
        """New migrations again, unless an operator disabled the agent."""
        if words := self.runtime.disabled.words:
            return Done(state=self.ledger.state, message=f"{words}; `dwcp-migrate enable` ends that")
        if self.ledger.state == "draining":
            self.ledger.set_state("running")
        self.coordination.change_draining(draining=False)
        self._hold_redirect()
        return Done(state=self.ledger.state)

    async def disable(self, reason: str) -> Done:
        """Drain until `enable`, over restarts too; raises DwcpError where that cannot be kept."""
        await asyncio.to_thread(self.runtime.disabled.begin, reason, wall_clock())
        log.warning("disabled", reason=reason)
        done = self.drain()
        return Done(state=done.state, message=f"disabled until `dwcp-migrate enable`; {done.message}")

    async def enable(self) -> Done:
        """End `disable`."""
        await asyncio.to_thread(self.runtime.disabled.end)
        log.warning("enabled")
        return Done(state=self.undrain().state, message="new migrations are accelerated again")

    def reload(self) -> Done:
        """Read the configuration again; what listens and where is only read at the start.

        Raises:
            ConfigError: it is wrong; the old one stays in force.
        """
        try:
            config = load(self._path)
        except ConfigError as error:
            self._configured.error = str(error)
            log.error("reload refused", error=str(error))  # noqa: TRY400 - no bug, no trace
            raise
        runtime = self.runtime
        runtime.config = keeping_listeners(config, runtime.config)
        set_level(config.log_level)
        runtime.directory = self._addresses.use([*config.peers, *self._members.peers])
        runtime.silent = SilentPeers(config.link.negative_cache_s)
        runtime.announcements.lifetime_s = config.policy.announcement_s_max
        runtime.control.connect_timeout_s = config.link.connect_timeout_s
        runtime.control.forget()
        self._hold_redirect()
        pending = self._configured.take(config, wall_clock())
        count = len(runtime.directory.all())
        log.info("configuration reloaded", peers=count, pending_restart=pending)
        waiting = f"; {', '.join(pending)} will change with a restart" if pending else ""
        return Done(state=self.ledger.state, message=f"{count_nouns(count, 'peer', 'peers')}{waiting}")

    def configuration(self) -> RunningConfig:
        """See `api.RunningConfig`."""
        return self._configured.view()

    async def measured(self) -> Measured:
        """See `PredictionHandlers.measured`."""
        return await self._predictions.measured()

    async def load(self) -> FleetLoad:
        """See `LoadWatch.fleet`."""
        return await self._loads.fleet()

    async def predict(self, domain: str, peer: str, deadline_s: float) -> Predicted:
        """See `PredictionHandlers.predict`."""
        return await self._predictions.predict(domain, peer, deadline_s)

    def share(self, domain: str, weight: float, deadline_s: float) -> Done:
        """See `PredictionHandlers.share`."""
        return self._predictions.share(domain, weight, deadline_s)

    def record(self, directory: str, domain: str) -> Done:
        """See `Runtime.arm_recording`."""
        return Done(state=self.ledger.state, message=self.runtime.arm_recording(directory, domain))

    def _announced(self, announce: Announce) -> None:
        if self._hook_trial.take(announce.uuid):
            return
        self.runtime.announcements.announce(announce.uuid, announce.name, steady_clock())
        self.ledger.count_one("announcements")
        self._views.hook_heard()
        log.info("migration announced", domain=announce.name, uuid=announce.uuid)
