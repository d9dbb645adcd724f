"""Answers to peers' requests that are about this host and none of its migrations."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.peers.probe_budget import ProbeBudget
from dwcp_migrate.agent.peers.server import make_refusal
from dwcp_migrate.api.recap import recap_of
from dwcp_migrate.api.schema import CertificateExpiry
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.protocol.control import (
    ADDRESSES_MAX,
    Examine,
    Examined,
    Follow,
    HookRound,
    Message,
    Probe,
    Probed,
    Recall,
    Recalled,
    Refused,
    Successor,
    Weigh,
    Weighed,
)

AboutRequest = Follow | Weigh | Examine | Probe | Recall


@dataclass(frozen=True, slots=True)
class AboutHost:
    """Answers about this host.

    Attributes:
        runtime: the shared parts.
        software: this software's version.
        is_own_address: whether an address is this host's.
        successor: who follows which members of the PBFT group.
        load: what this host and its guests use.
        try_hook: runs the libvirt hook and waits for its word.
        certificate: reads this host's certificate.
    """

    runtime: Runtime
    software: str
    is_own_address: Callable[[str], bool]
    successor: Callable[[Follow], Successor]
    load: Callable[[Weigh], Weighed]
    try_hook: Callable[[], Awaitable[HookRound]]
    certificate: Callable[[], CertificateExpiry]
    _probes: ProbeBudget = field(default_factory=ProbeBudget)

    async def answer(self, peer: PeerConfig, request: AboutRequest, *, carried: int) -> Message:
        """Answer a peer's request.

        Args:
            peer: who asks, by its certificate.
            request: what it asks.
            carried: migrations that arrive here now.
        """
        match request:
            case Follow():
                return self.successor(request)
            case Weigh():
                return self.load(request)
            case Examine():
                return await self._examine(request, carried)
            case Probe():
                return self._probe(peer, request)
            case Recall():
                return Recalled(recap=recap_of(self.runtime.ledger.recent(), request.since))

    def _probe(self, peer: PeerConfig, request: Probe) -> Probed | Refused:
        """Count the bytes of a measurement; they have crossed the link by now, so that they count in any case."""
        if not self._probes.take(peer.name, len(request.data), steady_clock()):
            return make_refusal("probe-limit")
        return Probed(received=len(request.data), cpu_s=time.process_time())

    async def _examine(self, request: Examine, carried: int) -> Examined:
        runtime = self.runtime
        intercept = runtime.config.intercept
        libvirt = runtime.domains.state()
        own = await asyncio.to_thread(self.certificate)
        return Examined(
            refuses=self._refuses(carried),
            own_addresses=tuple(address for address in request.addresses if self.is_own_address(address)),
            needs_announcement=runtime.config.policy.require_announcement,
            hook=await self.try_hook(),
            libvirt=libvirt.version if libvirt.connected else "",
            libvirt_error=(libvirt.error or "not connected")[:256] if runtime.config.libvirt_uri else "",
            sessions=carried,
            sessions_max=runtime.config.policy.sessions_max,
            certificate_names=tuple(name[:256] for name in own.names[:ADDRESSES_MAX]),
            certificate_until=own.not_after,
            port_min=intercept.port_min,
            port_max=intercept.port_max,
        )

    def _refuses(self, carried: int) -> str:
        """The code of the refusal that any migration would meet now; empty where there is none."""
        runtime = self.runtime
        memory = runtime.memory.use()
        checks = {
            runtime.ledger.state: runtime.ledger.state != "running",
            "observe": runtime.config.policy.observe,
            "sessions": carried >= runtime.config.policy.sessions_max,
            "memory": memory.sessions >= memory.sessions_max,
            "no-data-process": not runtime.spares.ready and bool(runtime.spares.error),
        }
        return next((code for code, applies in checks.items() if applies), "")
