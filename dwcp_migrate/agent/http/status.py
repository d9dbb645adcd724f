"""Read-only views of the agent: its status, its peers, the facts for `doctor`.

The rule: views are read-only; their only requests are pings of peers.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from dwcp_migrate import __version__
from dwcp_migrate.agent.accept_loop import ANY_IPV4, ANY_IPV6
from dwcp_migrate.agent.context import Runtime, is_own_address
from dwcp_migrate.agent.http import host_facts as facts
from dwcp_migrate.agent.intake.loopback import LoopbackListeners
from dwcp_migrate.agent.intake.redirect import Redirection
from dwcp_migrate.agent.migrations.outgoing import FOREIGN
from dwcp_migrate.agent.peers.client import code_of
from dwcp_migrate.agent.peers.reach import candidate_addresses
from dwcp_migrate.api.cluster import GroupStatus, RecordFacts
from dwcp_migrate.api.schema import (
    AgentStatus,
    CertificateExpiry,
    ConfigurationStatus,
    Facts,
    Hook,
    Libvirt,
    LinkForecast,
    ListenerStatus,
    Peers,
    PeerView,
    RedirectStatus,
)
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.net import family_of
from dwcp_migrate.protocol.control import VERSIONS, Ping, Pong
from dwcp_migrate.protocol.load import HostLoad
from dwcp_migrate.state.engine_status import EngineStatus
from dwcp_migrate.tasks import faults

PEERS_AT_ONCE: Final = 32
"""Peers asked at the same time: a thousand handshakes at once would hold up the event loop."""

SPARE_FAILURES_MAX: Final = 3
"""Starts of a data process in a row that may fail before the redirect is given up, until one succeeds again."""

CERTIFICATES_KEPT_S: Final = 30.0
"""The status reads the certificates' files at most this often; a migration reads them itself."""


@dataclass(frozen=True, slots=True)
class StatusSources:
    """The objects of the agent that the status is read from.

    Attributes:
        listening: which listeners are up, by their use.
        fleet: this host's part in the fleet's record, as `doctor` judges it.
        coordination: where the cluster state stood lately.
        group: this host in the PBFT group.
        links: what the links to the peers will carry.
        load: what this host uses.
        configuration: how the configuration file was read last.
        peers_up: whether each peer answered lately.
    """

    listening: Callable[[], dict[str, bool]]
    fleet: Callable[[], Awaitable[RecordFacts]]
    coordination: Callable[[], EngineStatus]
    group: Callable[[], GroupStatus]
    links: Callable[[], list[LinkForecast]]
    load: Callable[[], HostLoad]
    ports_not_redirected: Callable[[], list[str]]
    configuration: Callable[[], ConfigurationStatus]
    peers_up: Callable[[], dict[str, bool]]


class StatusViews:
    """The agent's views.

    Attributes:
        metrics_error: why the metrics listener is not.
    """

    def __init__(
        self, runtime: Runtime, redirection: Redirection, loopback: LoopbackListeners, sources: StatusSources
    ) -> None:
        self._runtime = runtime
        self._sources = sources
        self._loopback = loopback
        self._redirection = redirection
        self._started_at = wall_clock()
        self._hook_last_at = 0.0
        self._certificates: tuple[float, list[CertificateExpiry]] = (-CERTIFICATES_KEPT_S, [])
        self.metrics_error = ""

    @property
    def hook_last_at(self) -> float:
        """As `api.Hook.last_at`."""
        return self._hook_last_at

    def hook_heard(self) -> None:
        """The hook announced a migration just now."""
        self._hook_last_at = wall_clock()

    def redirect_wanted(self) -> bool:
        """The agent can carry what a redirect would catch."""
        runtime = self._runtime
        may_carry = runtime.ledger.state == "running" and not runtime.config.policy.observe
        return may_carry and self._runtime.spares.failures < SPARE_FAILURES_MAX

    def status(self) -> AgentStatus:
        """See `api.Status`."""
        runtime = self._runtime
        return AgentStatus(
            name=runtime.name,
            version=__version__,
            pid=os.getpid(),
            state=runtime.ledger.state,
            started_at=self._started_at,
            now=wall_clock(),
            peers=len(runtime.directory.all()),
            spare_ready=runtime.spares.ready,
            hook_last_at=self._hook_last_at,
            totals=runtime.ledger.totals(),
            intercept=self._intercept(),
            libvirt=self._libvirt(),
            certificates=self._read_certificates(),
            migrations=runtime.ledger.running(),
            coordination=self._sources.coordination(),
            group=self._sources.group(),
            links=self._sources.links(),
            memory=runtime.memory.use(),
            load=replace(self._sources.load(), guests=[]),
            faults=dict(faults),
            configuration=self._sources.configuration(),
            peers_up=self._sources.peers_up(),
            disabled=runtime.disabled.words,
            store=runtime.store.use(),
            warm_ups=runtime.warm_ups.all(),
        )

    def _intercept(self) -> RedirectStatus:
        runtime = self._runtime
        view = self._redirection.view(runtime.config.intercept, runtime.directory, wanted=self.redirect_wanted())
        if runtime.spares.error and not view.error:
            return replace(view, error=runtime.spares.error)
        return view

    def _libvirt(self) -> Libvirt:
        state = self._runtime.domains.state()
        return Libvirt(
            uri=self._runtime.config.libvirt_uri,
            connected=state.connected,
            error=state.error,
            version=state.version,
        )

    def _read_certificates(self) -> list[CertificateExpiry]:
        read_at, found = self._certificates
        if steady_clock() - read_at >= CERTIFICATES_KEPT_S:
            found = facts.list_certificates(self._runtime.config.tls)
            self._certificates = (steady_clock(), found)
        return found

    async def peers(self) -> Peers:
        """See `api.Peers`."""
        turns = asyncio.Semaphore(PEERS_AT_ONCE)

        async def view(peer: PeerConfig) -> PeerView:
            async with turns:
                return await self.peer(peer)

        return Peers(peers=list(await asyncio.gather(*map(view, self._runtime.directory.all()))))

    async def peer(self, peer: PeerConfig) -> PeerView:
        """Look at every address of a peer, and ask at the first that answers."""
        runtime, addresses = self._runtime, candidate_addresses(peer)
        all_of_it = [*addresses, *(path for path in peer.link_addresses if path not in addresses)]
        pinged = await asyncio.gather(*(self._ping(peer, address) for address in all_of_it), return_exceptions=True)
        errors = {
            address: error for address, error in zip(all_of_it, pinged, strict=True) if isinstance(error, DwcpError)
        }
        silent = {address: str(error) for address, error in errors.items()}
        not_redirected = runtime.directory.without_address.get(peer.name, "")
        try:
            answering = next((address for address in addresses if address not in errors), None)
            if answering is None:
                raise errors[addresses[0]]
            pong, rtt_s = await self._ping(peer, answering)
        except DwcpError as error:
            return PeerView(
                name=peer.name,
                addresses=peer.addresses,
                link_addresses=peer.link_addresses,
                port=peer.port,
                reachable=False,
                silent=silent,
                not_redirected=not_redirected,
                code=code_of(error),
                error=str(error),
                hint=error.hint,
                retry_in_s=self._retry_in_s(peer, addresses),
            )
        runtime.silent.remove(peer.name, answering)
        return PeerView(
            name=peer.name,
            addresses=peer.addresses,
            link_addresses=peer.link_addresses,
            port=peer.port,
            reachable=pong.version > 0,
            silent=silent,
            not_redirected=not_redirected,
            version=pong.software,
            protocol=pong.version,
            state=pong.state,
            rtt_s=rtt_s,
            clock_ahead_s=pong.now - (wall_clock() - rtt_s / 2) if pong.now else 0.0,
            calls_itself=pong.name,
            calls_us=pong.known_as,
            code="" if pong.version else "version",
            error="" if pong.version else "the agents share no protocol version",
            hint="" if pong.version else "upgrade the older of the two agents",
        )

    async def _ping(self, peer: PeerConfig, address: str) -> tuple[Pong, float]:
        """Ask a peer whether it is there; returns its answer and the round trip in seconds."""
        before = steady_clock()
        pong = await self._runtime.control.ask(
            peer, address, Ping(versions=VERSIONS), Pong, self._runtime.control.connect_timeout_s
        )
        return pong, steady_clock() - before

    def _retry_in_s(self, peer: PeerConfig, addresses: list[str]) -> float:
        """Seconds until one of a peer's addresses is probed again."""
        now = steady_clock()
        silences = [self._runtime.silent.get(peer.name, address, now) for address in addresses]
        return min((silence.until - now if silence else 0.0 for silence in silences), default=0.0)

    async def facts(self) -> Facts:
        """See `api.Facts`."""
        runtime = self._runtime
        certificates = facts.list_certificates(runtime.config.tls)
        names = [name.lower() for found in certificates if found.use == "host" for name in found.names]
        descriptors, descriptors_max = facts.open_descriptors()
        return Facts(
            name=runtime.name,
            version=__version__,
            state=runtime.ledger.state,
            intercept=self._intercept(),
            libvirt=self._libvirt(),
            hook=self._hook(),
            certificates=certificates,
            tls_error=facts.tls_error(runtime.config.tls),
            name_in_certificate=runtime.name.lower() in names,
            listeners=self._listeners(),
            peers=(await self.peers()).peers,
            spare_ready=runtime.spares.ready,
            explicit_peer=runtime.config.intercept.explicit_peer if runtime.config.intercept.explicit_port else "",
            history_error=runtime.ledger.history_error,
            core_dumps_off=facts.core_dumps_off(),
            configuration_error=self._sources.configuration().error,
            pending_restart=self._sources.configuration().pending_restart,
            open_descriptors=descriptors,
            open_descriptors_max=descriptors_max,
            group=self._sources.group(),
            fleet=await self._sources.fleet(),
            foreign=[
                f"{record.address} port {record.port}"
                for record in runtime.ledger.running()
                if record.passthrough_reason == FOREIGN
            ],
            memory=runtime.memory.use(),
            store=runtime.store.use(),
            ports_not_redirected=self._sources.ports_not_redirected(),
        )

    def _hook(self) -> Hook:
        return Hook(
            socket=str(self._runtime.config.hook_socket),
            listening=self._sources.listening().get("hook", False),
            last_at=self._hook_last_at,
            pending=len(self._runtime.announcements.pending(steady_clock())),
        )

    def _listeners(self) -> list[ListenerStatus]:
        config = self._runtime.config
        up = self._sources.listening()
        where = {"control": str(config.control_socket), "hook": str(config.hook_socket)}
        where["link"] = f"{config.link.listen}:{config.link.port}"
        if config.intercept.explicit_port:
            where["explicit"] = f"127.0.0.1:{config.intercept.explicit_port}"
        if config.metrics_listen:
            where["metrics"] = config.metrics_listen
        errors = {"metrics": self.metrics_error, "link": _not_here(config.link.listen)}
        needed = frozenset(family_of(address) for address, _ in self._runtime.directory.redirected())
        redirect = self._loopback.view(needed) if config.intercept.redirect else []
        return redirect + [
            ListenerStatus(
                use=use,
                address=address,
                listening=up.get(use, False) and not errors.get(use),
                error=errors.get(use, ""),
            )
            for use, address in where.items()
        ]


def _not_here(address: str) -> str:
    """Reason for which a listener of this address cannot be reached; empty when it can."""
    if address in {ANY_IPV4, ANY_IPV6} or is_own_address(address):
        return ""
    return f"no interface of this host has {address} yet"
