"""Certificates of migrations: who decides, asking the group for one, judging one, and what became of it.

The rule: a destination believes a certificate because of the members' keys that its own configuration names, or of
those whom these named since (`memberships`), and once: a ticket is written down as used, and synced, before its
migration is let in. The disk and the memory connections of one migration show the same one, so that it stays good while
one of them runs.

    source       Register, Issue ─> certificate ─> in the permit         failed: Cancel
    destination  admit ─> used, on disk ─> the migration runs            completed: Consume, the domain is its own
"""

import contextlib
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.agent.authorization.engine_choice import EngineChoice, EngineHealth, EngineName, EnginePolicy, choose
from dwcp_migrate.agent.authorization.retry_queue import RetryQueue
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.pbft.group import PbftGroup
from dwcp_migrate.api.cluster import Chosen, EngineEvent, PbftView
from dwcp_migrate.api.migration import Result as Ended
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.consensus.pbft.certificate import decode, encode
from dwcp_migrate.consensus.tickets.machine import (
    REFUSALS,
    Cancel,
    Consume,
    Issue,
    Operation,
    Ownership,
    Refusal,
    Register,
    Release,
    Result,
    Ticket,
    decode_result,
)
from dwcp_migrate.consensus.tickets.machine import encode as encode_operation
from dwcp_migrate.consensus.tickets.verifier import CertificateVerifier, ExpectedTicket
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import ConsensusError, NoQuorumError, SessionError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import Permit

CHOICES_KEPT: Final = 64
"""Latest choices that `cluster pbft` shows."""

SLOTS_MAX: Final = 256
"""Slots of a destination: as many as it may take in at once (`policy.sessions_max`)."""

log = get_logger(component="certifying")


class _Held(msgspec.Struct):
    """What must survive a restart: used tickets with their expiry, and those that were let in, by domain."""

    used: dict[int, int]
    admitted: dict[str, int]


class CertificateIssuer:
    """Certificates of this host.

    Args:
        runtime: the shared parts.
        group: the PBFT group.
    """

    def __init__(self, runtime: Runtime, group: PbftGroup) -> None:
        self._runtime = runtime
        self._group = group
        engines = {EngineName.RAFT} if group.group is None else {EngineName.RAFT, EngineName.PBFT}
        self._health = EngineHealth(frozenset(engines))
        self._path = Path(runtime.config.state_directory) / "pbft" / "used"
        self._damage = ""
        try:
            self._held = _read(self._path)
        except ConsensusError as error:
            self._held, self._damage = _Held({}, {}), f"{error}; {error.hint}"
        self._permits = CertificateVerifier(self._held.used)
        self._shown: dict[str, bytes] = {}
        self._running: dict[str, str] = {}
        self._owed = RetryQueue(self._ask, steady_clock)
        self.choices: deque[Chosen] = deque(maxlen=CHOICES_KEPT)

    # -- who decides

    def choose(self, source: tuple[str, str], destination: tuple[str, str]) -> EngineChoice:
        """Choose who decides about a migration; both hosts as name and trust domain."""
        coordination = self._runtime.config.coordination
        policy = EnginePolicy("pbft" if coordination.pbft.mode == "pbft" else "auto", coordination.require)
        usable = self._health.usable(steady_clock())
        if self._group.group is None:
            usable |= {EngineName.RAFT}  # nothing to fall back to: it is always worth a try
        choice = choose(source[1], destination[1], policy, usable)
        self.choices.append(
            Chosen(
                at=wall_clock(),
                source=source[0],
                destination=destination[0],
                engine=choice.engine,
                reason=choice.reason,
                fallback=choice.fallback,
            )
        )
        log.info("engine", engine=choice.engine, reason=choice.reason, fallback=choice.fallback)
        return choice

    def failed(self, engine: EngineName, reason: str) -> None:
        """Note that an engine did not decide."""
        self._health.failed(engine, reason, steady_clock())
        log.warning("engine failed", engine=engine, reason=reason)

    def worked(self, engine: EngineName) -> None:
        """Note that an engine decided."""
        self._health.worked(engine, steady_clock())

    def view(self) -> PbftView:
        """See `cluster_views.PbftView`."""
        offset_s = wall_clock() - steady_clock()
        events = [
            EngineEvent(at=event.at_s + offset_s, engine=event.engine, usable=event.usable, reason=event.reason)
            for event in reversed(self._health.events)
        ]
        return PbftView(
            mode=self._runtime.config.coordination.pbft.mode,
            group=self._group.status(),
            cluster=self._runtime.config.coordination.pbft.cluster,
            seats=self._group.seats(),
            choices=list(reversed(self.choices)),
            events=events,
        )

    @property
    def is_possible(self) -> bool:
        """Whether there is a group to ask."""
        return self._group.group is not None

    # -- source

    async def certify(self, uuid: str, destination: str) -> bytes:
        """Get a certificate for a migration of a domain that runs here.

        Raises:
            NoQuorumError: the group did not decide in time.
            SessionError: the group refuses it.
        """
        if uuid in self._shown and self._is_running(uuid):
            return self._shown[uuid]
        try:
            generation = await self._register(uuid)
            certificate = await self._issue(uuid, destination, generation)
        except NoQuorumError as error:
            self.failed(EngineName.PBFT, str(error))
            raise
        self.worked(EngineName.PBFT)
        self._shown[uuid] = certificate
        return certificate

    async def _register(self, uuid: str) -> int:
        result = await self._ask(Register(uuid))
        if isinstance(result, Refusal) and uuid in self._held.admitted:
            await self._ask(Consume(uuid, self._held.admitted[uuid]))  # it runs here: what a crash left unsaid
            result = await self._ask(Register(uuid))
        if not isinstance(result, Ownership):
            raise _refusal(result)
        return result.generation

    async def _issue(self, uuid: str, destination: str, generation: int) -> bytes:
        lifetime_ms = round(self._runtime.config.coordination.pbft.ticket_s_max * 1000)
        slot = 0
        for _ in range(SLOTS_MAX):
            operation = encode_operation(Issue(uuid, destination, slot, generation, lifetime_ms))
            decision = await self._group.decide(operation, certify=True)
            result = decode_result(decision.result)
            if isinstance(result, Ticket) and decision.certificate is not None:
                return encode(decision.certificate)
            if not isinstance(result, Refusal) or result.code not in {"domain-busy", "slot-busy"}:
                raise _refusal(result)
            if result.code == "slot-busy":
                slot += 1
            elif self._is_running(uuid):
                raise _refusal(result)
            else:
                await self._ask(Cancel(uuid, result.token))  # of a migration that this agent did not live to see end
        raise SessionError(f"{destination} has {SLOTS_MAX} migrations under way", hint="wait for one of them")

    async def _ask(self, operation: Operation) -> Result:
        return decode_result((await self._group.decide(encode_operation(operation))).result)

    # -- destination

    def needs(self, *, crosses: bool) -> bool:
        """Whether a migration needs a certificate."""
        return crosses or self._runtime.config.coordination.pbft.mode == "pbft"

    async def follow(self, permit: Permit, peer: PeerConfig) -> None:
        """Ask the source who followed, where its certificate is of later members than are known here."""
        lineage = self._group.lineage
        with contextlib.suppress(ConsensusError):  # no certificate at all: `verify` says so
            if lineage is not None and decode(permit.certificate).epoch > lineage.newest.epoch:
                await self._group.follow(peer)

    def verify(self, permit: Permit) -> bool:
        """Judge the certificate that came along; a good one is used from now on, also after a restart."""
        lineage = self._group.lineage
        if lineage is None or self._damage:
            log.warning("certificate refused", why=self._damage or self._group.status().error)
            return False
        if self._is_running(permit.uuid) and self._shown.get(permit.uuid) == permit.certificate:
            return True
        expected, now_ms = (
            ExpectedTicket(permit.uuid, permit.source, permit.destination, None),
            round(wall_clock() * 1000),
        )
        try:
            certificate = decode(permit.certificate)
            ticket = self._permits.admit(certificate, lineage.judge(certificate, now_ms), expected, now_ms)
            admitted = {uuid: token for uuid, token in self._held.admitted.items() if token in self._permits.used}
            self._held = _Held(self._permits.used, {**admitted, ticket.domain: ticket.token})
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path, msgspec.msgpack.encode(self._held))
        except ConsensusError as error:
            log.warning("certificate refused", why=str(error), hint=error.hint)
            return False
        except OSError as error:
            log.error("certificate refused", why=f"{self._path}: {error.strerror}")  # noqa: TRY400 - no bug, no trace
            return False
        self._shown[permit.uuid] = permit.certificate
        return True

    # -- both

    def begin(self, identity: str, uuid: str) -> None:
        """Note that a migration runs on the certificate that was shown for a domain."""
        self._running[identity] = uuid

    def forget(self, identity: str) -> None:
        """Note that it did not come to be."""
        self._running.pop(identity, None)

    def carries(self, identity: str) -> bool:
        """Whether a migration runs on a certificate."""
        return identity in self._running

    def _is_running(self, uuid: str) -> bool:
        return uuid in self._running.values()

    async def ended(self, identity: str, role: str, result: Ended, *, certain: bool) -> None:
        """Tell the group how a migration ended; what nobody is certain of is made up for when the domain leaves."""
        uuid = self._running.pop(identity, "")
        if not uuid or self._is_running(uuid):
            return
        certificate = self._shown.pop(uuid, b"")
        if not certain or not certificate:
            return
        ticket = decode_result(decode(certificate).result)
        if not isinstance(ticket, Ticket):
            return
        if role == "destination" and result == "completed":
            await self._tell(Consume(uuid, ticket.token))
        elif role == "source" and result == "failed":
            await self._tell(Cancel(uuid, ticket.token))

    async def left(self, uuid: str) -> None:
        """Tell the group that a domain left by a move that others decided."""
        if self._group.group is not None and self._group.status().role != "none":
            await self._tell(Release(uuid))

    async def _tell(self, operation: Operation) -> None:
        self._owed.add(operation, self._runtime.config.coordination.pbft.ticket_s_max)
        await self._owed.tell()

    async def tell_owed(self) -> None:
        """Tell the group what it could not be told before."""
        await self._owed.tell()


def _refusal(result: Result) -> SessionError:
    words = REFUSALS.get(result.code, result.code) if isinstance(result, Refusal) else str(result)
    return SessionError(f"the PBFT group refuses it: {words}", hint="see `dwcp-migrate cluster pbft`")


def _read(path: Path) -> _Held:
    """Read what was held.

    Raises:
        ConsensusError: it is damaged: tickets could be used again.
    """
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=_Held)
    except FileNotFoundError:
        return _Held({}, {})
    except (OSError, msgspec.DecodeError) as error:
        raise ConsensusError(
            f"{path}, the list of used tickets, cannot be read: {error}",
            hint="once tickets have expired (coordination.pbft.ticket_s_max) it may be removed",
        ) from error
