"""Control API of the trial of a peer: checks of everything that a migration to it depends on.

The rule: one trial at a time, limited in bytes and seconds; it opens no migration and leaves no traces.
"""

import asyncio
from collections.abc import Callable
from difflib import get_close_matches
from typing import Final

import msgspec
from aiohttp import web

from dwcp_migrate import __version__
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.http.answers import answer_json
from dwcp_migrate.agent.http.host_facts import list_certificates
from dwcp_migrate.agent.http.status import StatusViews
from dwcp_migrate.agent.migrations.left_alone import reason_to_leave_alone
from dwcp_migrate.agent.peers.addresses import in_background, look_up_name
from dwcp_migrate.agent.peers.throughput import (
    BYTES_MAX,
    CHANNELS_MAX,
    SECONDS_MAX,
    MeasurePlan,
    measure_link,
    rate_beside,
)
from dwcp_migrate.agent.tracking.uncaught import STEP_ASIDE
from dwcp_migrate.api.peer_check import LinkMeasured, PastMigrations, PeerCheck
from dwcp_migrate.api.schema import LinkForecast, PeerView
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError, NotFoundError, PeerRefusedError
from dwcp_migrate.protocol.control import ADDRESSES_MAX, Examine, Examined
from dwcp_migrate.state.engine_status import EngineStatus
from dwcp_migrate.units import MIB

SECONDS_DEFAULT: Final = 3.0
BYTES_DEFAULT: Final = 64 * MIB
CHANNELS_DEFAULT: Final = 8
"""Used where the configuration lets a migration find out by itself."""

RESOLVE_S_MAX: Final = 3.0
EXAMINE_S_MAX: Final = 10.0
"""The peer runs its hook meanwhile."""

TOO_OLD: Final = "unknown-request"
"""Code of the refusal of an agent before 0.2.0."""


class CheckHandlers:
    """The trial's handlers.

    Args:
        runtime: the shared parts.
        views: of the agent.
        forecasts: of the links to peers.
        measured: takes what the link to a peer was seen to carry at least, in bytes a second.
    """

    def __init__(
        self,
        runtime: Runtime,
        views: StatusViews,
        forecasts: Callable[[], list[LinkForecast]],
        measured: Callable[[str, float], None],
    ) -> None:
        self._runtime = runtime
        self._views = views
        self._forecasts = forecasts
        self._measured = measured
        self._turn = asyncio.Lock()

    def add_to(self, app: web.Application) -> None:
        """Add the trial to the control API."""
        app.router.add_get("/v1/check", self._check)

    async def _check(self, request: web.Request) -> web.StreamResponse:
        plan = MeasurePlan(
            channels=int(_bounded(request, "channels", 0, CHANNELS_MAX)) or self._channels(),
            bytes_max=int(_bounded(request, "bytes", BYTES_DEFAULT, BYTES_MAX)),
            seconds_max=_bounded(request, "seconds", SECONDS_DEFAULT, SECONDS_MAX),
        )
        peer = self._named(request.query.get("peer", ""))
        async with self._turn:
            answer = await self.check(peer, plan)
        return answer_json(answer)

    def _channels(self) -> int:
        link = self._runtime.config.link
        return min(link.channels or CHANNELS_DEFAULT, link.channels_max, CHANNELS_MAX)

    def _named(self, name: str) -> PeerConfig:
        directory = self._runtime.directory
        found = directory.by_name(name) or directory.by_address(name)
        if found is not None:
            return found
        if name.lower() == self._runtime.name.lower():
            raise NotFoundError(f"{name} is this host", hint="name another one: `dwcp-migrate status` lists the peers")
        names = [peer.name for peer in directory.all()]
        alike = get_close_matches(name.lower(), names, n=1)
        hint = f"did you mean {alike[0]}?" if alike else "add it to [[peers]]; `dwcp-migrate status` lists the peers"
        raise NotFoundError(f"no peer {name!r}: migrations there run unaccelerated (no-peer)", hint=hint)

    async def check(self, peer: PeerConfig, plan: MeasurePlan) -> PeerCheck:
        """Try a peer.

        Args:
            peer: which.
            plan: bounds of the measurement of the link.
        """
        runtime = self._runtime
        (resolved, resolve_error), view = await asyncio.gather(_resolve(peer.name), self._views.peer(peer))
        status = self._views.status()
        mine = {rule.address for rule in status.intercept.rules} if status.intercept.armed else set()
        refusal, refusal_why = self._own_refusal(peer)
        fleet, fleet_error = self._fleet(peer, status.coordination)
        found = PeerCheck(
            own_name=runtime.name,
            own_version=__version__,
            own_state=runtime.ledger.state,
            peer=view,
            resolved=resolved,
            resolve_error=resolve_error,
            redirect=msgspec.structs.replace(status.intercept, rules=[]),
            redirected=[address for address in peer.addresses if address in mine],
            own_certificates=await asyncio.to_thread(list_certificates, runtime.config.tls),
            own_refusal=refusal,
            own_refusal_why=refusal_why,
            fleet=fleet,
            fleet_error=fleet_error,
            is_agreement_required=runtime.config.coordination.requires(peer),
            forecast=next((link for link in self._forecasts() if link.peer == peer.name), None),
            past=self._past(peer),
            limit_bytes_per_s=runtime.link_ceiling(peer.name),
        )
        return await self._with_link(await self._with_word(found, peer), peer, plan) if view.reachable else found

    def _fleet(self, peer: PeerConfig, engine: EngineStatus) -> tuple[str, str]:
        """This host's state in the fleet's, and why that cannot be asked."""
        coordination = self._runtime.config.coordination
        if not coordination.is_shared or coordination.needs_certificate(peer):
            return "", ""  # across trust domains the PBFT group agrees, not the fleet's state
        if engine.state in {"stopped", "candidate"} or (engine.engine == "raft" and not engine.leader):
            return "stopped", engine.error or "no leader is known"
        return engine.state, ""

    def _own_refusal(self, peer: PeerConfig) -> tuple[str, str]:
        runtime = self._runtime
        memory = runtime.memory.use()
        carried = [record for record in runtime.ledger.running() if not record.passthrough_reason]
        state, policy, spares = runtime.ledger.state, runtime.config.policy, runtime.spares
        checks = (
            (state, state != "running", f"this agent is {state}"),
            ("observe", policy.observe, "this agent only observes (policy.observe)"),
            (
                "sessions",
                len(carried) >= policy.sessions_max,
                "this host carries as many as it may (policy.sessions_max)",
            ),
            (
                "memory",
                memory.sessions >= memory.sessions_max,
                "this host has no memory to spare for a further migration",
            ),
            ("no-data-process", bool(spares.error), f"this host can start no data process: {spares.error}"),
        )
        for code, applies, why in checks:
            if applies:
                return code, why
        why = reason_to_leave_alone(runtime, peer, runtime.ledger.recent())
        return (STEP_ASIDE, why) if why else ("", "")

    def _past(self, peer: PeerConfig) -> PastMigrations:
        mine = [
            record
            for record in self._runtime.ledger.recent()
            if (record.role, record.peer, record.result, record.kind) == ("source", peer.name, "completed", "memory")
            and not record.passthrough_reason
        ]
        return PastMigrations(
            count=len(mine),
            raw_bytes=sum(record.counters.raw_bytes for record in mine),
            wire_bytes=sum(record.counters.wire_bytes for record in mine),
        )

    async def _with_word(self, found: PeerCheck, peer: PeerConfig) -> PeerCheck:
        """Add the facts that the peer tells of itself."""
        request = Examine(addresses=tuple(peer.addresses[:ADDRESSES_MAX]))
        try:
            said = await self._runtime.control.ask(peer, _answering(found.peer), request, Examined, EXAMINE_S_MAX)
        except PeerRefusedError as error:
            old = f"its agent ({found.peer.version}) is older than this question"
            return msgspec.structs.replace(found, examine_error=old if error.code == TOO_OLD else str(error))
        except DwcpError as error:
            return msgspec.structs.replace(found, examine_error=str(error))
        return msgspec.structs.replace(found, examined=said)

    async def _with_link(self, found: PeerCheck, peer: PeerConfig, plan: MeasurePlan) -> PeerCheck:
        """Add a measurement of the link, held below what migrations need."""
        running = [one for one in self._runtime.ledger.running() if one.state != "ended"]
        there = found.examined.sessions if found.examined else 0
        # A migration between these two hosts counts at both: more than there are is the safe side.
        count = len(running) + there
        wire = sum(one.wire_bytes_per_s for one in running)
        held = msgspec.structs.replace(found, running=count)
        rate = rate_beside(count, wire, found.limit_bytes_per_s)
        measured: LinkMeasured
        try:
            measured = await measure_link(
                self._runtime.control, peer, _answering(found.peer), _held_to(plan, bytes_per_s=rate)
            )
        except DwcpError as error:
            is_old = isinstance(error, PeerRefusedError) and error.code == TOO_OLD
            why = f"its agent ({found.peer.version}) cannot be measured with" if is_old else str(error)
            hint = "upgrade it: 0.2.0 can" if is_old else error.hint
            return msgspec.structs.replace(held, measure_error=why, measure_hint=hint)
        if not rate and measured.bytes_per_s:
            self._measured(peer.name, measured.bytes_per_s)
        return msgspec.structs.replace(held, measured=measured)


def _held_to(plan: MeasurePlan, bytes_per_s: float) -> MeasurePlan:
    return MeasurePlan(plan.channels, plan.bytes_max, plan.seconds_max, bytes_per_s)


def _answering(view: PeerView) -> str:
    """The address at which the peer answered."""
    return next(address for address in view.addresses if address not in view.silent)


async def _resolve(name: str) -> tuple[list[str], str]:
    """The addresses that a name resolves to, and why it does not."""
    try:
        async with asyncio.timeout(RESOLVE_S_MAX):
            return await in_background(lambda: look_up_name(name))
    except TimeoutError:
        return [], f"no answer within {RESOLVE_S_MAX:g} s"


def _bounded(request: web.Request, name: str, otherwise: float, most: float) -> float:
    """A number of the query from 0 to `most`."""
    try:
        value = float(request.query.get(name, otherwise))
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise web.HTTPBadRequest(reason=f"{name} must be a number from 0 to {most:g}")
    return value
