"""Reconciler of tickets that a crash or a lost quorum left open, with the facts of both hosts' libvirt.

The rule: nothing is concluded from silence or from time. A ticket is settled when libvirt on both hosts has told
whether the domain runs there; a domain gets another owner outside a ticket only when its owner's libvirt says that it
is gone and another host's that it is there.
"""

import asyncio
from typing import Final

from dwcp_migrate.agent.authorization.absent_domains import AbsentDomains
from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer
from dwcp_migrate.agent.authorization.ticket_ages import TicketAges
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.api.cluster import RecordFacts
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import CoordinationError, DwcpError
from dwcp_migrate.hypervisor.base import DomainInfo
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import Ask, Runs
from dwcp_migrate.state.fleet.commands import ForgetDomain, HandOver, PutDomain, Resolve
from dwcp_migrate.state.fleet.model import Ticket
from dwcp_migrate.tasks import Tasks

EVERY_S: Final = 5.0
"""Between two looks for what is open."""

SETTLED_S: Final = 10.0
"""A ticket that changed more recently is left alone: its migration may be ending just now."""

STUCK_S: Final = 300.0
"""Age from which a ticket whose migration has ended counts as stuck, because looks have not settled it."""

log = get_logger(component="recovery")


class TicketReconciler:
    """Looks after this host's part of the fleet's state.

    Args:
        runtime: the shared parts.
        coordination: the fleet's state.
        permits: knows which tickets are carried.
    """

    def __init__(self, runtime: Runtime, coordination: ClusterStateClient, permits: MigrationAuthorizer) -> None:
        self._runtime = runtime
        self._coordination = coordination
        self._permits = permits
        self._absent = AbsentDomains()
        self._ages = TicketAges()
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin to look, if there is a fleet: a host by itself has nothing to settle with anybody."""
        coordination = self._runtime.config.coordination
        if not coordination.is_shared and not coordination.pbft.is_used:
            return
        self._tasks.keep_running("reconciler", self._run)

    async def close(self) -> None:
        """Stop."""
        await self._tasks.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self._permits.settle(self.runs)
            try:
                await self.look()
            except CoordinationError as error:
                log.debug("nothing can be settled now", error=str(error))

    async def look(self) -> None:
        """Settle what can be settled; raises NoQuorumError."""
        if not self._coordination.is_known:
            return
        for ticket, _ in (await self._left_open()).values():
            await self._settle(ticket)
        domains = await self._runtime.domains.here()
        if domains is not None:
            await self._register(domains)

    async def facts(self) -> RecordFacts:
        """Say where this host stands in the fleet's record, and which of its tickets are stuck."""
        is_shared, engine = self._runtime.config.coordination.is_shared, await self._coordination.status()
        try:
            stuck = await self._left_open(STUCK_S)
        except CoordinationError:
            stuck = {}
        told = [
            f"{ticket.token} of {ticket.uuid} ({ticket.source} to {ticket.destination}, {ticket.state} for "
            f"{age_s / 60:.0f} min)"
            for ticket, age_s in stuck.values()
        ]
        return RecordFacts(is_shared=is_shared, engine=engine, stuck_tickets=told)

    async def _left_open(self, since_s: float = SETTLED_S) -> dict[int, tuple[Ticket, float]]:
        """This host's open tickets that nothing carries and that have not changed for so long, with their ages."""
        name, carried = self._runtime.name, set(self._permits.carried.values())
        found = await self._coordination.look(
            lambda fleet: [
                ticket
                for ticket in fleet.open_tickets.values()
                if name in (ticket.source, ticket.destination)
                and ticket.token not in carried
                and ticket.state != "granted"
            ]
        )
        ages = self._ages.look(found, steady_clock())
        return {one.token: (one, ages[one.token]) for one in found if ages[one.token] > since_s}

    async def _settle(self, ticket: Ticket) -> None:
        mine = await self.runs(ticket.uuid)
        is_source = ticket.source == self._runtime.name
        peer = self._runtime.directory.by_name(ticket.destination if is_source else ticket.source)
        theirs = await self._ask(peer, ticket.uuid)
        if mine is None or theirs is None:
            return
        source_runs, destination_runs = (mine, theirs) if is_source else (theirs, mine)
        body = Resolve(token=ticket.token, source_runs=source_runs, destination_runs=destination_runs)
        outcome = await self._coordination.submit(body)
        say = log.error if source_runs and destination_runs else log.warning
        say(
            "ticket settled",
            token=ticket.token,
            uuid=ticket.uuid,
            source_runs=source_runs,
            destination_runs=destination_runs,
            code=outcome.code,
        )

    async def runs(self, uuid: str) -> bool | None:
        """Whether a domain runs here for good; None while it moves or libvirt does not say."""
        return await self._runtime.domains.runs(uuid)

    async def _ask(self, peer: PeerConfig | None, uuid: str) -> bool | None:
        if peer is None:
            return None
        try:
            answer = await self._runtime.control.ask(peer, peer.addresses[0], Ask(uuid=uuid), Runs)
        except DwcpError:
            return None
        return answer.runs

    async def _register(self, domains: list[DomainInfo]) -> None:
        """Tell the fleet of domains that run here and that it does not know, or knows elsewhere."""
        active = {domain.uuid for domain in domains}
        here = {domain.uuid: domain for domain in domains if not domain.is_moving}
        name = self._runtime.name
        known, hosts = await self._coordination.look(
            lambda fleet: (
                {
                    uuid: (found.owner, found.name, uuid in fleet.open_tickets)
                    for uuid, found in fleet.domains.items()
                    if found.owner == name or uuid in here
                },
                set(fleet.hosts),
            )
        )
        for uuid, domain in here.items():
            owner, called, is_moving = known.get(uuid, ("", "", False))
            if (owner, called) == (name, domain.name) or is_moving:
                continue
            if owner in ("", name):
                await self._coordination.submit(
                    PutDomain(uuid=uuid, name=domain.name, memory_bytes=domain.memory_bytes)
                )
        ours = [uuid for uuid, (owner, _, is_moving) in known.items() if owner == name and not is_moving]
        absent = [uuid for uuid in ours if uuid not in active]
        for uuid in self._absent.to_ask(absent, steady_clock()):
            await self._look_for(uuid, hosts - {name})

    async def _look_for(self, uuid: str, hosts: set[str]) -> None:
        """A domain of this host's does not run here: hand it over to who has it, forget it where nobody knows it.

        It is forgotten only when libvirt here has no such domain any more, running or not, and every other host that
        the fleet knows says that it runs none.
        """
        peers = self._runtime.directory.all()
        said = await asyncio.gather(*(self._ask(peer, uuid) for peer in peers))
        answers = {peer.name: runs for peer, runs in zip(peers, said, strict=True)}
        running = [name for name, runs in answers.items() if runs]
        if running:
            if await self.runs(uuid) is False:
                await self._coordination.submit(HandOver(uuid=uuid, destination=running[0]))
                log.warning("a domain went without a ticket", uuid=uuid, owner=running[0])
            return
        is_nowhere = all(answers.get(host) is False for host in hosts)
        if is_nowhere and await self._runtime.domains.is_defined(uuid) is False:
            outcome = await self._coordination.submit(ForgetDomain(uuid=uuid))
            log.info("a domain that libvirt knows no more is forgotten", uuid=uuid, code=outcome.code)
