"""Migrations of libvirt's that leave this host past the agent: a record of each, with where it went and why.

Only connections to peers' addresses and migration ports are caught. A migration that goes elsewhere (another address,
another port, a Unix socket, a tunnel), or to a peer that is left alone, runs as it would without the agent; its record
is made from libvirt's reports, so that operators see that it was not accelerated, and why.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker, with_job
from dwcp_migrate.agent.tracking.observed import OBSERVES
from dwcp_migrate.agent.tracking.outgoing_jobs import OutgoingJob
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.api.migration import Migration, MigrationEvent, MigrationPhase, Result, close_record
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import Config
from dwcp_migrate.hypervisor.tcp_connections import TcpConnection, read_established
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import DomainName
from dwcp_migrate.protocol.worker import SESSION_ID_BYTES
from dwcp_migrate.tasks import Tasks

NOT_CAUGHT: Final = "not-caught"
"""The reason in the record of why it ran unaccelerated."""

STEP_ASIDE: Final = "step-aside"
"""The same where it was left to QEMU alone, since that is faster."""

LOOK_S: Final = 1.0
"""Between two looks at libvirt's jobs."""

OBSERVED_S: Final = 1.0
"""The same for an agent that only observes: it catches no connection, and need not wait for one's record."""

TIE_S_MAX: Final = 5.0
"""A record finds its domain within two looks at libvirt; a job that is older and has none was not caught."""

log = get_logger(component="agent")


@dataclass(frozen=True, slots=True)
class Way:
    """The way of a migration that was not caught.

    Attributes:
        cause: one of `schema.NOT_CAUGHT_CAUSES`.
        why: one sentence for the operator.
        address: empty where it is not known, as `port` is 0 and `peer` empty.
    """

    cause: str
    why: str
    address: str = ""
    port: int = 0
    peer: str = ""


def way_of(
    connections: Sequence[TcpConnection],
    carried: Collection[tuple[str, int]],
    config: Config,
    directory: PeerDirectory,
    own_uid: int,
) -> Way:
    """Judge by the host's connections where a migration goes that the agent did not catch; nothing is guessed.

    Args:
        connections: those that are established.
        carried: addresses and ports of migrations that have a record.
        config: the agent's.
        directory: whose addresses are caught.
        own_uid: the agent's user, whose connections are its own.
    """
    ports = range(config.intercept.port_min, config.intercept.port_max + 1)
    far = {
        (one.far_address, one.far_port): one
        for one in connections
        if one.port not in ports and (one.far_address, one.far_port) not in carried and one.uid != own_uid
    }
    inside = [one for (_, port), one in far.items() if port in ports]
    if len(inside) == 1:
        one = inside[0]
        peer = directory.by_address(one.far_address)
        where = f"it goes to {one.far_address} port {one.far_port}"
        if peer is None:
            why = f"{where}, an address that no [[peers]] entry lists; add it to `addresses` of its host, then reload"
            return Way("other-address", why, one.far_address, one.far_port)
        why = f"{where} of {peer.name}, which is redirected, but not for user {one.uid} or not when it began"
        return Way("not-redirected", why, one.far_address, one.far_port, peer.name)
    if inside:
        several = ", ".join(sorted(f"{one.far_address} port {one.far_port}" for one in inside)[:4])
        return Way("unseen", f"it goes to one of {several}, none of which was caught")
    known = {port for peer in directory.all() for port in (peer.port,)} | _SERVICES
    outside = [
        one for one in far.values() if directory.by_address(one.far_address) is not None and one.far_port not in known
    ]
    if len(outside) == 1:
        one = outside[0]
        peer = directory.by_address(one.far_address)
        why = (
            f"the only other connection to a peer goes to {one.far_address} port {one.far_port}, outside of"
            f" {ports.start}-{ports.stop - 1}; see migration_port_min in qemu.conf and the port of --migrateuri"
        )
        return Way("other-port", why, one.far_address, one.far_port, peer.name if peer else "")
    return Way(
        "unseen",
        "no TCP connection to a migration port is to be seen: a Unix socket (--migrateuri unix:), a tunnel"
        " (--tunnelled), or another network namespace",
    )


_SERVICES: Final = frozenset({22, 16509, 16514})
"""SSH and libvirtd's own ports: never a migration's data, but of a tunnel."""


class UncaughtMigrations:
    """Keeps a record of each migration that was not caught.

    Args:
        config: the agent's configuration now.
        directory: the peers now.
        left_alone: why nothing is redirected towards peers now, by name.
        ledger: where the records are.
        domains: libvirt's word.
        look: reads the host's connections; it runs on a thread.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        directory: Callable[[], PeerDirectory],
        left_alone: Callable[[], Mapping[str, str]],
        ledger: MigrationRegistry,
        domains: DomainTracker,
        look: Callable[[], list[TcpConnection]] = read_established,
    ) -> None:
        self._config = config
        self._directory = directory
        self._left_alone = left_alone
        self._ledger = ledger
        self._domains = domains
        self._look = look
        self._tasks = Tasks()
        self._seen: dict[str, Way] = {}

    def start(self) -> None:
        """Begin to look."""
        self._tasks.begin(self._run())

    async def close(self) -> None:
        """Stop; records that run stay open, as the agent's end leaves them."""
        await self._tasks.cancel()

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Make a record of each job that has none."""
        while new := [job for job in self._domains.unfollowed(0.0) if job.uuid not in self._seen]:
            way = await self._way()  # its connection may be gone before it is old enough
            self._seen |= {job.uuid: way for job in new}
        # Nothing is awaited from here on: the end of a job would come before its record, which would stay open.
        young = {job.uuid for job in self._domains.unfollowed(0.0)}
        tie_s = OBSERVED_S if self._config().policy.observe else TIE_S_MAX
        for job in self._domains.unfollowed(tie_s, take=True):
            self._record(job, self._seen[job.uuid])
        self._seen = {uuid: way for uuid, way in self._seen.items() if uuid in young}

    async def _way(self) -> Way:
        state = self._ledger.state
        if state != "running":
            return Way("draining", f"this agent is {state}: it catches nothing")
        if not self._config().intercept.redirect and not self._config().policy.observe:
            return Way("unseen", "intercept.redirect is off: only migrations with --migrateuri are caught")
        connections = await asyncio.get_running_loop().run_in_executor(None, self._look)
        carried = {(one.address, one.port) for one in self._ledger.running()}
        way = way_of(connections, carried, self._config(), self._directory(), os.geteuid())
        if way.cause == "not-redirected" and (why := self._left_alone().get(way.peer)):
            return replace(way, cause=STEP_ASIDE, why=why)
        if self._config().policy.observe:
            return replace(way, cause=OBSERVES, why="this agent only observes (policy.observe)")
        return way

    def _record(self, job: OutgoingJob, way: Way) -> None:
        now = wall_clock()
        identity = os.urandom(SESSION_ID_BYTES).hex()
        is_meant = way.cause in (OBSERVES, STEP_ASIDE)
        reason = way.cause if is_meant else NOT_CAUGHT
        event = MigrationEvent(at=now, event=reason, detail=f"{way.cause}: {way.why}")
        record = Migration(
            id=identity,
            role="source",
            state="passthrough",
            peer=way.peer,
            address=way.address,
            port=way.port,
            domain=job.name,
            uuid=job.uuid,
            started_at=now - (steady_clock() - job.since),
            passthrough_reason=reason,
            phases=(MigrationPhase(state="passthrough", at=now),),
            events=(event,),
        )
        self._ledger.put(record)
        self._ledger.count("passthrough", reason)
        if is_meant:
            log.info("migration left alone", migration=identity, domain=job.name, peer=way.peer, why=way.why)
        else:
            self._ledger.count("not_caught", way.cause)
            log.warning("migration not caught", migration=identity, domain=job.name, cause=way.cause, why=way.why)
        if job.result:
            if job.statistics is not None:
                self._ledger.put(with_job(record, job.statistics, ended=True))
            self._end(identity, job.result, job.reason, now - (steady_clock() - job.ended))
            return
        self._domains.follow(identity, "source", (DomainName(job.uuid, job.name),))
        self._domains.tell(identity, job.uuid, job.name)
        self._tasks.begin(self._settle(identity))

    async def _settle(self, identity: str) -> None:
        """Wait for libvirt's report of the end, however long the migration takes."""
        verdict = await self._domains.verdict(identity)
        while not verdict.result:
            await asyncio.sleep(LOOK_S)
            verdict = await self._domains.verdict(identity)
        self._end(identity, verdict.result, verdict.reason, wall_clock())
        self._domains.forget(identity)

    def _end(self, identity: str, result: Result, reason: str, at: float) -> None:
        record = self._ledger.get(identity)
        if record is not None:
            self._ledger.put(close_record(record, at, libvirt=result, reason=reason))
