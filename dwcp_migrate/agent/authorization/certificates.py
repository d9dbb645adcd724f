"""Certificates of migrations: choice of the engine, request for a certificate, its verification, report of the result.

The rule: a destination verifies a certificate with the members' keys of its own configuration, or of the memberships
that those members signed since (`memberships`). It accepts each once: a ticket is written as used, and synced, before
its migration is let in. The disk and the memory connections of one migration show the same certificate, so that it
stays valid while one of them runs.

    source       Propose ─> certificate ─> in the permit               failed: Fail, if nothing was begun
    destination  admit ─> used, on disk ─> Begin ─> the migration runs   completed: Resume, the domain is its own
                                                                         failed: Fail
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.agent.authorization.engine_choice import EngineChoice, EngineHealth, EngineName, EnginePolicy, choose
from dwcp_migrate.agent.authorization.retry_queue import RetryQueue
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.pbft.group import PbftGroup
from dwcp_migrate.api.cluster import Chosen, EngineEvent, GroupStatus, PbftView
from dwcp_migrate.api.migration import Result as Ended
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.consensus.pbft.certificate import decode_certificate, encode_certificate
from dwcp_migrate.consensus.tickets.operations import (
    BeginTicket,
    FailTicket,
    Forget,
    Operation,
    ProposeTicket,
    Refusal,
    Result,
    ResumeTicket,
    Ticket,
    decode_result,
    encode_operation,
)
from dwcp_migrate.consensus.tickets.verifier import CertificateVerifier, ExpectedTicket
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import ConsensusError, NoQuorumError, SessionError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import Permit
from dwcp_migrate.refusals import BY_PBFT_GROUP, explain_code

CHOICES_KEPT: Final = 64
"""Latest choices that `cluster pbft` shows."""

BUSY_S: Final = 0.25
"""Pause before a domain is proposed again whose last destination has not reported the result yet."""

SETTLED_S: Final = 10.0
"""Time for which libvirt must report the same before it settles a migration that a crash left open."""

log = get_logger(component="certifying")


class _Held(msgspec.Struct):
    """State that survives a restart: used tickets with their expiry, and admitted ones by domain until they end."""

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
        self._retry_queue = RetryQueue(self._ask, self._path.with_name("owed"), runtime.disk)
        self._observed: dict[str, tuple[bool, float]] = {}
        self.choices: deque[Chosen] = deque(maxlen=CHOICES_KEPT)

    def group_status(self) -> GroupStatus:
        """Status of the group, with the number of reports that it has not confirmed."""
        return msgspec.structs.replace(self._group.status(), owed=len(self._retry_queue))

    # -- who decides

    def choose(self, source: tuple[str, str], destination: tuple[str, str], peer: PeerConfig) -> EngineChoice:
        """Choose the engine that is to decide about a migration.

        Args:
            source: name and trust domain.
            destination: name and trust domain.
            peer: configuration of the other host.
        """
        coordination = self._runtime.config.coordination
        policy = EnginePolicy("pbft" if coordination.pbft.mode == "pbft" else "auto", coordination.requires(peer))
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
        """Note that an engine did not decide.

        Args:
            engine: that was asked.
            reason: for the log and for operators.
        """
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
            group=self.group_status(),
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

        Args:
            uuid: of the domain.
            destination: name of the host that it is to migrate to.

        Returns:
            The certificate, encoded; the one that was got before, while a migration of the domain runs on it.

        Raises:
            NoQuorumError: the group did not decide in time.
            SessionError: the group refuses it.
        """
        if uuid in self._shown and self._is_running(uuid):
            return self._shown[uuid]
        configured = self._runtime.config.coordination.pbft
        operation = encode_operation(ProposeTicket(uuid, destination, round(configured.ticket_s_max * 1000)))
        deadline = steady_clock() + configured.timeout_s
        while True:
            try:
                decision = await self._group.decide(operation, certify=True)
            except NoQuorumError as error:
                self.failed(EngineName.PBFT, str(error))
                raise
            self.worked(EngineName.PBFT)
            result = decode_result(decision.result)
            if isinstance(result, Ticket) and decision.certificate is not None:
                self._shown[uuid] = encode_certificate(decision.certificate)
                return self._shown[uuid]
            is_busy = isinstance(result, Refusal) and result.code == "domain-busy"
            if not is_busy or self._is_running(uuid) or steady_clock() > deadline:
                raise _refusal(result)
            await asyncio.sleep(BUSY_S)

    async def _ask(self, operation: Operation) -> Result:
        return decode_result((await self._group.decide(encode_operation(operation))).result)

    # -- destination

    def needs(self, peer: PeerConfig) -> bool:
        """Whether a migration to or from a peer needs a certificate, as this host's configuration says."""
        return self._runtime.config.coordination.needs_certificate(peer)

    def shows(self, permit: Permit) -> bool:
        """Whether a migration runs here already on this very certificate."""
        return self._is_running(permit.uuid) and self._shown.get(permit.uuid) == permit.certificate

    async def follow(self, permit: Permit, peer: PeerConfig) -> None:
        """Ask the source for newer members of the group, where its certificate is from an epoch unknown here.

        Args:
            permit: that the source shows.
            peer: the source.
        """
        lineage = self._group.lineage
        with contextlib.suppress(ConsensusError):  # no certificate at all: `verify` says so
            if lineage is not None and decode_certificate(permit.certificate).epoch > lineage.newest.epoch:
                await self._group.follow(peer)

    async def verify(self, permit: Permit) -> bool:
        """Judge the certificate that came along; a good one is used from now on, also after a restart."""
        lineage = self._group.lineage
        if lineage is None or self._damage:
            log.warning("certificate refused", why=self._damage or self._group.status().error)
            return False
        if self.shows(permit):
            return True
        expected, now_ms = (
            ExpectedTicket(permit.uuid, permit.source, permit.destination, None),
            round(wall_clock() * 1000),
        )
        try:
            certificate = decode_certificate(permit.certificate)
            ticket = self._permits.admit(certificate, lineage.judge(certificate, now_ms), expected, now_ms)
            await self._keep({**self._held.admitted, ticket.domain: ticket.token})
        except ConsensusError as error:
            log.warning("certificate refused", why=str(error), hint=error.hint)
            return False
        except OSError as error:
            log.error("certificate refused", why=f"{self._path}: {error.strerror}")  # noqa: TRY400 - no bug, no trace
            return False
        self._shown[permit.uuid] = permit.certificate
        return True

    def _keep(self, admitted: dict[str, int]) -> asyncio.Future[None]:
        """Hold this from now on, and begin to write it."""
        self._held = _Held(self._permits.used, admitted)
        data, path = msgspec.msgpack.encode(self._held), self._path

        def write() -> None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, data)

        return self._runtime.disk.begin(write)

    async def start(self, permit: Permit) -> str:
        """Have the group note that a migration begins on a verified certificate: its source cannot take that back.

        Returns:
            What the group has against it; empty for nothing.

        Raises:
            NoQuorumError: the group did not decide in time. If it did all the same, that will be made up for.
        """
        ticket = _ticket_of(permit.certificate)
        if ticket is None:
            return BY_PBFT_GROUP["no-ticket"].text
        begin = BeginTicket(ticket.domain, ticket.token)
        try:
            result = await self._ask(begin)
        except NoQuorumError as error:
            self.failed(EngineName.PBFT, str(error))
            self._retry_queue.add(begin)
            raise
        self.worked(EngineName.PBFT)
        return "" if isinstance(result, Ticket) else str(_refusal(result))

    # -- both

    def begin(self, identity: str, uuid: str) -> None:
        """Note that a migration runs on the certificate that was got for a domain.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            uuid: of the domain.
        """
        self._running[identity] = uuid

    def forget(self, identity: str) -> None:
        """Forget a migration that did not begin."""
        self._running.pop(identity, None)

    def carries(self, identity: str) -> bool:
        """Whether a migration runs on a certificate."""
        return identity in self._running

    def domain(self, identity: str) -> str:
        """The domain on whose certificate a migration runs; empty where it runs on none."""
        return self._running.get(identity, "")

    def _is_running(self, uuid: str) -> bool:
        return uuid in self._running.values()

    async def ended(self, identity: str, role: str, result: Ended, *, certain: bool) -> None:
        """Tell the group how a migration ended; an uncertain result is settled when the domain leaves.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            role: `source` or `destination`.
            result: of the migration.
            certain: libvirt has confirmed the result.
        """
        uuid = self._running.pop(identity, "")
        if not uuid or self._is_running(uuid):
            return
        ticket = _ticket_of(self._shown.pop(uuid, b""))
        if not certain or ticket is None:
            return
        operation: Operation
        if role == "destination":
            operation = _end(uuid, ticket.token, is_here=result == "completed")
        elif result == "failed":
            operation = FailTicket(uuid, ticket.token)
        else:
            operation = Forget(uuid)  # in vain where the destination takes it over, as it mostly does
        await self._tell(operation)

    async def left(self, uuid: str) -> None:
        """Tell the group that a domain left by a move that others decided."""
        if self._group.group is not None and self._group.status().role != "none":
            await self._tell(Forget(uuid))

    async def _tell(self, operation: Operation) -> None:
        self._retry_queue.add(operation)
        if isinstance(operation, ResumeTicket | FailTicket):
            self._settled(operation.domain, operation.token)
        await self._retry_queue.send_pending()

    def _settled(self, uuid: str, token: int) -> None:
        """The notification is on disk before this; so its migration need not be settled after a crash any more."""
        self._observed.pop(uuid, None)
        if self._held.admitted.get(uuid) == token:  # what is not written is settled again, in vain
            self._keep({domain: held for domain, held in self._held.admitted.items() if domain != uuid})

    async def expect(self, announced: Sequence[str]) -> None:
        """Settle earlier migrations of domains that this host's own libvirt is about to take in: they failed."""
        for uuid in announced:
            token = self._held.admitted.get(uuid)
            if token is not None and not self._is_running(uuid) and not await self._runtime.domains.runs(uuid):
                await self._tell(_end(uuid, token, is_here=False))

    async def settle(self, runs: Callable[[str], Awaitable[bool | None]]) -> None:
        """Settle migrations to this host whose end nobody was certain of, or that a crash left open.

        Args:
            runs: what libvirt says: whether a domain runs here for good; None while that is open.
        """
        now = steady_clock()
        for uuid, token in list(self._held.admitted.items()):
            is_here = None if self._is_running(uuid) else await runs(uuid)
            if is_here is None:
                self._observed.pop(uuid, None)
                continue
            said, since = self._observed.setdefault(uuid, (is_here, now))
            if said != is_here:
                self._observed[uuid] = is_here, now
            elif now - since >= SETTLED_S and not self._is_running(uuid):
                await self._tell(_end(uuid, token, is_here=is_here))
        await self._retry_queue.send_pending()


def _ticket_of(certificate: bytes) -> Ticket | None:
    """Read the ticket of a certificate that was made or verified here; None if there is none."""
    if not certificate:
        return None
    ticket = decode_result(decode_certificate(certificate).result)
    return ticket if isinstance(ticket, Ticket) else None


def _end(domain: str, token: int, *, is_here: bool) -> Operation:
    """Build the operation by which a destination ends a ticket that it began."""
    return (ResumeTicket if is_here else FailTicket)(domain, token)


def _refusal(result: Result) -> SessionError:
    words = explain_code(BY_PBFT_GROUP, result.code).text if isinstance(result, Refusal) else str(result)
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
