"""Authorisation of a migration: the agreement of source and destination before bytes flow, and the record of its end.

Without `coordination.require` no answer of the fleet or of a destination makes a migration fail: one that the fleet
refuses runs unaccelerated, and an agreement of two hosts by themselves is never a reason to refuse. With it, a
migration that the fleet has not agreed to, or between trust domains without a certificate, is reset. Each host's own
configuration says of which trust domain a peer is, and so whether a certificate is needed.

    source       Expect ─> which domain is it? ─> Propose ─> ticket ─> Open(permit)
    destination  Open(permit) ─> needs a certificate? verified, and begun by the group
                              ├─> a ticket: in the fleet's log, mine, of this peer, this domain? ─> Begin ─> Opened
                              └─> point to point: Opened, with a remark where names or clocks differ
    end          destination: Resume, ownership moves      source: Fail, when libvirt says so
"""

import contextlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec.structs import replace

from dwcp_migrate.agent.authorization.certificates import CertificateIssuer
from dwcp_migrate.agent.authorization.engine_choice import EngineName
from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.tracking.running_store import SessionFacts
from dwcp_migrate.api.migration import Result
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import PeerConfig, same_name
from dwcp_migrate.errors import CoordinationError, FleetRefusedError, NoQuorumError, PeerRefusedError, SessionError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import DomainName, Expect, Expected, Permit
from dwcp_migrate.refusals import BY_CLUSTER_STATE, explain_code
from dwcp_migrate.state.fleet.commands import Begin, Body, Fail, Propose, Resume
from dwcp_migrate.state.fleet.model import FleetState, Ticket

BLOCKING: Final = frozenset({"busy", "draining", "limit"})
"""Outcomes of a proposal that are the fleet's refusal; after any other one both ends agree by themselves."""

log = get_logger(component="permits")


@dataclass(frozen=True, slots=True)
class Authorization:
    """The source's authorisation of a migration.

    Attributes:
        permit: for the destination; None when the domain is not known.
        note: for the record.
    """

    permit: Permit | None
    note: str


class Judgement(NamedTuple):
    """The destination's decision on an authorisation.

    Attributes:
        code: of a refusal; empty lets it in.
        agreed: `fleet`, `certificate`, `point-to-point`, or empty for nothing.
        remark: what was noticed and let pass.
    """

    code: str
    agreed: str = ""
    remark: str = ""


class MigrationAuthorizer:
    """Agreements of this host.

    Args:
        runtime: the shared parts.
        coordination: the fleet's state.
        certifying: certificates, and who decides.

    Attributes:
        carried: tickets of migrations under way here, by migration.
    """

    def __init__(self, runtime: Runtime, coordination: ClusterStateClient, certifying: CertificateIssuer) -> None:
        self._runtime = runtime
        self._coordination = coordination
        self._certifying = certifying
        self._domains: dict[str, str] = {}
        self.carried: dict[str, int] = {}

    def requires(self, peer: PeerConfig) -> bool:
        """Whether a migration to or from a peer is refused if only the two hosts agreed to it."""
        return self._runtime.config.coordination.requires(peer)

    def allow_unaccelerated(self, identity: str, peer: PeerConfig, why: str, *, is_answered: bool) -> None:
        """Object where a migration of this host's must not run without the two agents.

        Where somebody else has to agree, that must have happened; and a certificate that is needed binds the
        destination once that has begun it. One that says nothing has not, and its source could still say that the
        guest never left.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            peer: the destination.
            why: it would run unaccelerated.
            is_answered: the destination's agent has answered, and did not ask for a reset.

        Raises:
            SessionError: the fleet has to agree, and has not.
        """
        if not self.requires(peer):
            return
        is_begun = is_answered or not self._certifying.needs(peer)
        if is_begun and (identity in self.carried or self._certifying.carries(identity)):
            return
        raise SessionError(f"coordination.require: {why}", hint="see `dwcp-migrate cluster status`")

    # -- source

    async def obtain(
        self, identity: str, peer: PeerConfig, address: str, leaving: Collection[DomainName]
    ) -> Authorization:
        """Ask the fleet for a ticket, or settle for an agreement of both ends.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            peer: the destination.
            address: at which its agent is asked.
            leaving: domains that leave this host now, as libvirt says.

        Raises:
            SessionError: the fleet is required to agree, and does not or cannot.
            FleetRefusedError: it does not agree; the migration is not accelerated.
            DwcpError: the destination's agent cannot be asked; as `peers.client.ControlClient.ask` says.
        """
        domain = await self._which(peer, address, leaving)
        if domain is None:
            return self._settle(None, "the domain is not known", peer)
        alone = Permit(
            uuid=domain.uuid,
            source=self._runtime.name,
            destination=peer.name,
            expires_at=wall_clock() + self._runtime.config.coordination.ticket_s_max,
        )
        if not self._runtime.config.coordination.is_shared and not self._certifying.needs(peer):
            return self._settle(alone, "no fleet is configured", peer)
        try:
            return await self._propose(identity, peer, domain, alone)
        except NoQuorumError as error:
            return self._settle(alone, str(error), peer)
        except FleetRefusedError as error:
            if self.requires(peer):
                raise SessionError(str(error), hint=error.hint) from error
            raise

    async def _propose(self, identity: str, peer: PeerConfig, domain: DomainName, alone: Permit) -> Authorization:
        body = Propose(
            uuid=domain.uuid,
            name=domain.name,
            source=self._runtime.name,
            destination=peer.name,
            lifetime_s=self._runtime.config.coordination.ticket_s_max,
        )
        hosts = (body.source, self._runtime.config.coordination.trust_domain), (body.destination, peer.trust_domain)
        if not self._certifying.is_possible:  # nothing but what the hosts say of themselves, for the record
            ours, theirs = await self._coordination.look(lambda fleet: trusts(fleet, body.source, body.destination))
            hosts = (body.source, ours), (body.destination, theirs)
        choice = self._certifying.choose(*hosts, peer)
        if choice.engine is EngineName.RAFT:
            try:
                return await self._ticket(identity, body, alone, peer)
            except NoQuorumError:
                if not self._certifying.is_possible:
                    raise
            choice = self._certifying.choose(*hosts, peer)
        if choice.engine is EngineName.PBFT:
            agreement = await self._certified(identity, body, alone, peer)
            return Authorization(agreement.permit, f"{agreement.note}; PBFT: {choice.reason}")
        return self._settle(alone, choice.reason, peer)

    async def _certified(self, identity: str, body: Propose, alone: Permit, peer: PeerConfig) -> Authorization:
        """Get a certificate, and enter it in the fleet's log where that can be had."""
        try:
            certificate = await self._certifying.certify(body.uuid, body.destination)
        except SessionError as error:
            raise FleetRefusedError(str(error), code="ticket", hint=error.hint) from error
        self._certifying.begin(identity, body.uuid)
        alone = replace(alone, certificate=certificate)
        if not self._runtime.config.coordination.is_shared:
            return self._settle(alone, "no fleet is configured", peer)
        try:
            return await self._ticket(identity, replace(body, certificate=certificate), alone, peer)
        except NoQuorumError as error:
            return Authorization(alone, f"certificate alone: {error}")

    async def _ticket(self, identity: str, body: Propose, alone: Permit, peer: PeerConfig) -> Authorization:
        try:
            outcome = await self._coordination.submit(body)
        except NoQuorumError as error:
            self._certifying.failed(EngineName.RAFT, str(error))
            raise
        self._certifying.worked(EngineName.RAFT)
        if outcome.code:
            words = explain_code(BY_CLUSTER_STATE, outcome.code).text
            if outcome.code in BLOCKING:
                raise FleetRefusedError(
                    f"the fleet refuses it: {words}", code=outcome.code, hint="see `dwcp-migrate tickets`"
                )
            return self._settle(alone, f"the fleet gives no ticket: {words}", peer)
        ticket = await self._coordination.look(lambda fleet: fleet.ticket(outcome.token))
        if ticket is None:
            return self._settle(alone, "the ticket is gone already", peer)
        self.carried[identity] = ticket.token
        self._domains[identity] = ticket.uuid
        return Authorization(as_permit(ticket), f"ticket {ticket.token}, generation {ticket.generation}")

    def _settle(self, permit: Permit | None, why: str, peer: PeerConfig) -> Authorization:
        """Go without the fleet's agreement, where that is allowed."""
        if permit is not None and permit.certificate and self._runtime.config.coordination.require is not True:
            return Authorization(permit, f"certificate alone: {why}")
        if self.requires(peer):
            raise SessionError(f"coordination.require: {why}", hint="see `dwcp-migrate cluster status`")
        return Authorization(permit, f"point-to-point: {why}")

    async def _which(self, peer: PeerConfig, address: str, leaving: Collection[DomainName]) -> DomainName | None:
        """Find the domain: one that leaves here and was announced there, and that no other migration carries yet.

        Without a fleet only where that is certain: of several that begin at once libvirt lists some later than their
        connections come, and an agreement that names the wrong one shuts the destination's door to the right one.
        """
        try:
            control = self._runtime.control
            request = Expect(domains=tuple(leaving))
            expected = await control.ask(peer, address, request, Expected, control.connect_timeout_s)
        except PeerRefusedError:
            return None  # an agent of before tickets
        here, taken = {found.uuid for found in leaving}, await self._taken()
        listed = [found for found in expected.candidates if not here or found.uuid in here]
        free = [found for found in expected.candidates if found.uuid not in taken]
        if not self._runtime.config.coordination.is_shared:
            return free[0] if len(free) == 1 and free[0] in listed else None
        if len(expected.candidates) < 2 or not here:  # noqa: PLR2004 - one or none
            # Of several that libvirt does not list one may be of a migration that is over.
            return listed[0] if len(listed) == 1 else None
        unlisted = [found for found in free if found not in listed]
        mine = {domain.uuid for domain in await self._runtime.domains.listed()} if unlisted else set()
        ranked = [*(found for found in listed if found in free), *(found for found in unlisted if found.uuid in mine)]
        return next(iter([*ranked, *listed]), None)

    async def _taken(self) -> set[str]:
        """Domains whose memory a migration carries from here, or whose ticket one does."""
        running = self._runtime.ledger.running()
        tied = {record.uuid for record in running if record.role == "source" and record.kind == "memory"}
        tokens = set(self.carried.values())
        with contextlib.suppress(CoordinationError):
            tied |= await self._coordination.look(
                lambda fleet: {ticket.uuid for ticket in fleet.open_tickets.values() if ticket.token in tokens}
            )
        return tied - {""}

    # -- destination

    async def expect(self, announced: Collection[DomainName]) -> None:
        """Make room for migrations that were announced here: what was left open of earlier ones of them is over."""
        await self._certifying.expect([domain.uuid for domain in announced])

    async def judge(self, identity: str, peer: PeerConfig, permit: Permit | None) -> Judgement:
        """Judge what a source brings along.

        Args:
            identity: of the migration.
            peer: who brings it.
            permit: what it brings; its domain is the one whose announcement will be used.
        """
        refusal = "ticket" if self.requires(peer) else ""
        needs = self._certifying.needs(peer)
        if permit is None:
            return Judgement(refusal)
        remarks = self._remarks(peer, permit)
        if needs and not permit.certificate:
            remarks.append("it has no certificate, and this host's configuration asks for one")
        is_certified = bool(permit.certificate) and (needs or self._certifying.is_possible)
        if not is_certified and (needs or not permit.token):  # both ends agree by themselves
            return Judgement(refusal, "point-to-point", "; ".join(remarks))
        if not self._is_ours(peer, permit):
            return Judgement("ticket")
        if is_certified:
            code = await self._judge_certificate(identity, peer, permit)
            if code or not permit.token:
                return Judgement(code, "" if code else "certificate", "; ".join(remarks))
        code, agreed = await self._judge_ticket(identity, peer, permit)
        return Judgement(code, agreed, "; ".join(remarks))

    async def _judge_certificate(self, identity: str, peer: PeerConfig, permit: Permit) -> str:
        """Verify a certificate, and have the group note that its migration begins."""
        await self._certifying.follow(permit, peer)
        is_known = self._certifying.shows(permit)
        if not await self._certifying.verify(permit):
            return "ticket"
        self._certifying.begin(identity, permit.uuid)
        if is_known:
            return ""
        try:
            objection = await self._certifying.start(permit)
        except NoQuorumError as error:
            log.warning("the group has not begun a ticket", uuid=permit.uuid, error=str(error))
            return "no-quorum" if self.requires(peer) else ""
        if objection:
            log.warning("certificate refused", uuid=permit.uuid, why=objection)
        return "ticket" if objection else ""

    def _is_ours(self, peer: PeerConfig, permit: Permit) -> bool:
        """Whether a permit names the two hosts that its connection's certificates prove."""
        return same_name(permit.source, peer.name) and same_name(permit.destination, self._runtime.name)

    def _remarks(self, peer: PeerConfig, permit: Permit) -> list[str]:
        """Differences between the two hosts' configurations; they stop no migration.

        A permit was written for this very request, whose peer its certificate proves: how old it is says how far the
        clocks are apart, and the names in it say what the source calls both hosts.
        """
        remarks = []
        if not same_name(permit.source, peer.name):
            remarks.append(f"the source calls itself {permit.source!r}, its certificate says {peer.name!r}")
        if not same_name(permit.destination, self._runtime.name):
            remarks.append(f"the source calls this host {permit.destination!r}, its name is {self._runtime.name!r}")
        late_s = wall_clock() - permit.expires_at
        if late_s > 0 and not permit.token:
            remarks.append(f"it expired {late_s:.0f} s ago by this host's clock: the hosts' clocks differ")
        return remarks

    async def _judge_ticket(self, identity: str, peer: PeerConfig, permit: Permit) -> tuple[str, str]:
        try:
            return await self._begin(identity, permit), "fleet"
        except NoQuorumError:
            if permit.certificate:
                return "", "certificate"
            return ("no-quorum" if self.requires(peer) else ""), "point-to-point"

    async def _begin(self, identity: str, permit: Permit) -> str:
        ticket = await self._find(permit.token)
        if ticket is None or as_permit(ticket) != permit:
            return "ticket"
        outcome = await self._coordination.submit(Begin(token=permit.token))
        if outcome.code:
            log.warning("ticket refused", token=permit.token, code=outcome.code)
            return "ticket"
        self.carried[identity] = permit.token
        return ""

    async def _find(self, token: int) -> Ticket | None:
        found = await self._coordination.look(lambda fleet: fleet.ticket(token))
        return found or await self._coordination.look(lambda fleet: fleet.ticket(token), fresh=True)

    # -- both

    async def settle(self, runs: Callable[[str], Awaitable[bool | None]]) -> None:
        """Make up for what could not be recorded of migrations that ended; see `CertificateIssuer.settle`."""
        await self._certifying.settle(runs)

    def facts(self, identity: str, facts: SessionFacts) -> SessionFacts:
        """Add a migration's permission to the facts that are kept for the next agent.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            facts: without it.
        """
        return replace(
            facts,
            token=self.carried.get(identity, 0),
            ticket_uuid=self._domains.get(identity, ""),
            certified_uuid=self._certifying.domain(identity),
        )

    def adopt(self, identity: str, facts: SessionFacts) -> None:
        """Take over the permission of a migration from the agent before this one.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            facts: as `facts` completed them.
        """
        if facts.token:
            self.carried[identity] = facts.token
        if facts.ticket_uuid:
            self._domains[identity] = facts.ticket_uuid
        if facts.certified_uuid:
            self._certifying.begin(identity, facts.certified_uuid)

    def forget(self, identity: str) -> None:
        """Forget a migration that was agreed on and did not begin."""
        self.carried.pop(identity, None)
        self._certifying.forget(identity)

    async def ended(self, identity: str, role: str, result: Result, *, certain: bool) -> None:
        """Record how a migration ended; an uncertain result is left to the reconciler.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            role: `source` or `destination`.
            result: of the migration; empty while it is not known.
            certain: libvirt has confirmed the result.
        """
        is_certified = self._certifying.carries(identity)
        await self._certifying.ended(identity, role, result, certain=certain)
        uuid = self._domains.pop(identity, "")
        if uuid and not is_certified and result == "completed" and certain:
            await self._certifying.left(uuid)
        token = self.carried.pop(identity, 0)
        if not token or not certain:
            return
        body: Body
        if role == "destination" and result == "completed":
            body = Resume(token=token)
        elif role == "source" and result == "failed":
            body = Fail(token=token, reason="libvirt says that it failed")
        else:
            return
        try:
            outcome = await self._coordination.submit(body)
        except NoQuorumError as error:
            log.warning("the end of a migration is not recorded yet", token=token, error=str(error))
            return
        log.info("ticket", token=token, role=role, result=result, code=outcome.code)


def as_permit(ticket: Ticket) -> Permit:
    """Build the permit of a ticket, which both ends compare."""
    return Permit(
        token=ticket.token,
        uuid=ticket.uuid,
        source=ticket.source,
        destination=ticket.destination,
        generation=ticket.generation,
        expires_at=ticket.expires_at,
        certificate=ticket.certificate,
    )


def trusts(fleet: FleetState, one: str, other: str) -> tuple[str, str]:
    """Look up the trust domains of two hosts.

    Args:
        fleet: the cluster state.
        one: name of a host.
        other: name of the other.

    Returns:
        Both trust domains; twice empty, and so equal, where the fleet does not know one of the hosts.
    """
    known, others = fleet.hosts.get(one), fleet.hosts.get(other)
    if known is None or others is None:
        return "", ""
    return known.trust_domain, others.trust_domain
