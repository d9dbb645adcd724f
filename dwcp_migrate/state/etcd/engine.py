"""The etcd engine: the same log and the same model, kept in an etcd that the fleet runs already.

Etcd orders, the model decides. The log is a row of keys. An entry is appended by a transaction that demands that its
key does not exist and that the snapshot is still the one that this host knows: only a snapshot deletes entries, so that
a key that is missing was then never written. Every host applies the same entries in the same order, as with Raft.

    PREFIX/log/0000000000000042   one entry, as `commands.encode_batch` writes it
    PREFIX/snapshot               the newest snapshot, see `snapshots`
    PREFIX/alive/NAME             bound to an etcd lease that the host NAME keeps alive

    append    txn: log/N+1 was never created and the snapshot is ours ─> put it ─> apply
              else ─> the same answer brings the entries that are new, or word of a new snapshot ─> again
    compact   txn: the snapshot is still the one that we know ─> put ours and delete the entries that it holds
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from socket import socket
from statistics import quantiles
from time import monotonic
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from dwcp_migrate.errors import CoordinationError, DwcpError, NoQuorumError
from dwcp_migrate.state.engine import RequestNumbers
from dwcp_migrate.state.engine_status import EngineMember, EngineStatus
from dwcp_migrate.state.etcd.gateway import EtcdGateway, EtcdLogin, decode, encode
from dwcp_migrate.state.etcd.liveness import EtcdLiveness
from dwcp_migrate.state.etcd.snapshots import EtcdSnapshots
from dwcp_migrate.state.fleet import commands, readers
from dwcp_migrate.state.fleet.fleet_clock import FleetClock
from dwcp_migrate.state.fleet.model import FIRST_VERSION, FleetState, TicketOutcome
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.tasks import Tasks, wait_within

PREFIX: Final = "/dwcp-migrate"

COMPACT_ENTRIES: Final = 1024
"""Entries behind the snapshot before a host writes a new one."""

RANGE_ENTRIES: Final = 16
"""Entries read at once; 16 of the largest, in base64, stay below `gateway.ANSWER_BYTES_MAX`."""

REFRESH_S: Final = 1.0
"""Between two looks for entries of other hosts while nothing is asked."""

RETRY_S: Final = 0.05
LATENCIES_KEPT: Final = 1024

CLOCKS_MIN: Final = 2
"""Clocks that are enough to be believed: this host's and that of the etcd that answers, or of another host."""

ETCD_CLOCK: Final = ".etcd"
"""Name of etcd's own clock among those of the hosts; no host's, whose names begin with a letter or a digit."""

T = TypeVar("T")


class _Asked(msgspec.Struct, frozen=True):
    data: bytes
    result: Any


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Settings of the etcd engine.

    Attributes:
        endpoints: URLs of members, tried in turn.
        context: makes the TLS context for endpoints with https.
        prefix: of all keys; fleets that share an etcd have different ones.
        login: None where etcd asks for none.
        compact_entries: entries behind the snapshot before this host writes a new one.
    """

    endpoints: Sequence[str]
    context: Callable[[], ssl.SSLContext] | None = None
    prefix: str = PREFIX
    login: EtcdLogin | None = None
    compact_entries: int = COMPACT_ENTRIES


class EtcdEngine:
    """See `engine.Engine`.

    Args:
        name: of this host.
        settings: of the fleet's etcd.
        clock: seconds since the epoch, for commands.
    """

    def __init__(self, name: str, settings: EtcdSettings, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._prefix = prefix = settings.prefix
        self._compact_entries = settings.compact_entries
        self._gateway = EtcdGateway(settings.endpoints, settings.context, settings.login)
        self._snapshots = EtcdSnapshots(self._gateway, prefix)
        self._liveness = EtcdLiveness(self._gateway, prefix, name)
        self._clocks = FleetClock()
        self._machine = FleetMachine()
        self._applied = 0
        self._has_caught_up = False
        self._requests = RequestNumbers(token_hex(8))
        self._ended = asyncio.Event()
        self._asked: list[_Asked] = []
        self._barriers: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._tasks = Tasks()
        self._latencies_ms: list[float] = []
        self._confirmed = self._failed = 0
        self._error = ""

    # -- life

    async def start(self) -> None:
        """See `engine.Engine`."""
        await self._gateway.start()
        self._tasks.keep_running("etcd", self._run)

    async def close(self) -> None:
        """See `engine.Engine`."""
        await self._tasks.cancel()
        await self._gateway.close()

    def adopt(self, sock: socket) -> None:
        """See `engine.Engine`; etcd has no connections between replicas."""
        sock.close()

    async def _run(self) -> None:
        """Append what is asked for, as one entry; else look for what others appended."""
        while True:
            self._work.clear()
            try:
                if self._asked:
                    await self._append()
                else:
                    await self._refresh()
                self._error = ""
            except (DwcpError, msgspec.MsgspecError, KeyError, ValueError) as error:
                self._error = str(error) or type(error).__name__
                await asyncio.sleep(RETRY_S)
                continue
            if not self._asked and not self._barriers:
                try:
                    await wait_within(self._work.wait(), REFRESH_S)
                except TimeoutError:
                    continue

    async def _refresh(self) -> None:
        waiting, self._barriers = self._barriers, []
        try:
            await self._catch_up()
        except BaseException:
            self._barriers = [*waiting, *self._barriers]
            raise
        for barrier in waiting:
            _finish(barrier, None)

    async def _append(self) -> None:
        """Append one entry of what is asked; what lost the race for its place is asked again."""
        if not self._has_caught_up:
            await self._catch_up()
        batch: list[_Asked] = []
        size = 0
        for asked in self._asked[: commands.BATCH_COMMANDS_MAX]:
            size += len(asked.data) + 5
            if batch and size > commands.BATCH_BYTES_MAX:
                break
            batch.append(asked)
        payload = commands.encode_batch(commands.held_back([asked.data for asked in batch], self._latest()))
        key = self._log_key(self._applied + 1)
        answer = await self._gateway.ask(
            "kv/txn",
            {
                "compare": [
                    {"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"},
                    self._snapshots.unchanged,
                ],
                "success": [{"request_put": {"key": key, "value": encode(payload)}}],
                "failure": self._news,
            },
        )
        if not answer.get("succeeded"):
            await self._take(answer)
            return
        outcomes = self._apply(payload)
        self._asked = [asked for asked in self._asked if asked not in batch]
        for asked, outcome in zip(batch, outcomes, strict=True):
            _finish(asked.result, outcome)
        if self._applied - self._snapshots.number >= self._compact_entries:
            await self._snapshots.write(self._applied, self._machine.save())

    @property
    def _news(self) -> list[dict[str, Any]]:
        """The operations of a transaction that say what is new: the snapshot's revision, and entries."""
        entries = {
            "key": self._log_key(self._applied + 1),
            "range_end": encode(f"{self._prefix}/log/:".encode()),
            "limit": str(RANGE_ENTRIES),
        }
        return [{"request_range": self._snapshots.revision_range}, {"request_range": entries}]

    async def _catch_up(self) -> None:
        """Apply all entries that are there now."""
        while await self._take(await self._gateway.ask("kv/txn", {"success": self._news})):
            pass
        if not self._has_caught_up:
            self._has_caught_up = True
            self._clocks.anchor(self._machine.fleet.now, monotonic())

    async def _take(self, answer: dict[str, Any]) -> bool:
        """Take in what `_news` brought; returns whether there may be more.

        Raises:
            CoordinationError: an entry is missing that no snapshot holds.
        """
        snapshot, log = (found["response_range"].get("kvs", []) for found in answer["responses"])
        if self._snapshots.is_new(snapshot):
            loaded = await self._snapshots.load()
            if loaded is not None and loaded.number > self._applied:
                self._machine.restore(loaded.state)
                self._applied = loaded.number
            return True
        for pair in log:
            if pair["key"] != self._log_key(self._applied + 1):
                raise CoordinationError(f"entry {self._applied + 1} is missing in etcd", hint="restore etcd's data")
            self._apply(decode(pair["value"]))
        return bool(log)

    def _apply(self, payload: bytes) -> list[TicketOutcome]:
        batch = commands.decode_batch(payload)
        outcomes = self._machine.apply(batch)
        self._applied += 1
        if self._has_caught_up:
            for host, at in commands.times(batch):
                if host != self._name:
                    self._clocks.hear(host, at, monotonic())
        return outcomes

    def _log_key(self, number: int) -> str:
        return encode(f"{self._prefix}/log/{number:016d}".encode())

    def _latest(self) -> float:
        """The latest time that an entry may bring: this host's clock may be far ahead of the others'."""
        here = monotonic()
        self._clocks.hear(self._name, self._clock(), here)
        if self._gateway.server_time is not None:
            self._clocks.hear(ETCD_CLOCK, self._gateway.server_time, self._gateway.answered_at)
        return self._clocks.latest(here, CLOCKS_MIN)

    # -- requests

    async def submit(self, body: commands.Body, timeout_s: float) -> TicketOutcome:
        """See `engine.Engine`."""
        if readers.version_of(body) > FIRST_VERSION:
            await self.barrier(timeout_s)
            readers.check_readers(self._machine.fleet, body)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._requests.may_begin:
            self._ended.clear()
            try:
                await wait_within(self._ended.wait(), deadline - loop.time())
            except TimeoutError as error:
                raise self._no_quorum(timeout_s) from error
        number, request = self._requests.begin()
        began = loop.time()
        command = commands.Command(request=request, by=self._name, at=self._clock(), body=body)
        asked = _Asked(commands.encode(command), loop.create_future())
        try:
            self._asked.append(asked)
            self._work.set()
            outcome: TicketOutcome = await wait_within(asked.result, deadline - loop.time())
        except TimeoutError as error:
            self._failed += 1
            raise self._no_quorum(timeout_s) from error
        finally:
            self._asked = [other for other in self._asked if other is not asked]
            self._requests.end(number)
            self._ended.set()
        self._confirmed += 1
        self._latencies_ms = [*self._latencies_ms[1 - LATENCIES_KEPT :], (loop.time() - began) * 1000]
        return outcome

    async def barrier(self, timeout_s: float) -> None:
        """See `engine.Engine`; a linearizable range is enough, nothing is written."""
        barrier: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barriers.append(barrier)
        self._work.set()
        try:
            await wait_within(barrier, timeout_s)
        except TimeoutError as error:
            raise self._no_quorum(timeout_s) from error

    def _no_quorum(self, timeout_s: float) -> NoQuorumError:
        why = f": {self._error}" if self._error else ""
        return NoQuorumError(
            f"etcd did not confirm it within {timeout_s:g} s{why}", hint="see `etcdctl endpoint status`"
        )

    async def beat(self, body: commands.PutHost, timeout_s: float) -> TicketOutcome:
        """See `engine.Engine`; a host that says nothing new keeps its etcd lease alive instead of writing an entry."""
        known = self._machine.fleet.hosts.get(self._name)
        if known is None or not self._liveness.may_stand_for(body):
            outcome = await self.submit(body, timeout_s)
            if outcome.code:
                return outcome
            self._liveness.was_said(body)
        try:
            async with asyncio.timeout(timeout_s):
                await self._liveness.beat()
        except (TimeoutError, CoordinationError) as error:
            raise self._no_quorum(timeout_s) from error
        return TicketOutcome()

    async def look(self, at: Callable[[FleetState], T]) -> T:
        """See `engine.Engine`; hosts whose lease lives were heard just now."""
        fleet = self._machine.fleet
        alive = {
            name: replace(fleet.hosts[name], heard_at=max(fleet.hosts[name].heard_at, heard_at))
            for name, heard_at in self._liveness.heard.items()
            if name in fleet.hosts
        }
        return at(replace(fleet, hosts={**fleet.hosts, **alive}) if alive else fleet)

    async def status(self) -> EngineStatus:
        """See `engine.Engine`; term, index and members are etcd's, and missing where its roles do not show them."""
        try:
            status = await self._gateway.ask("maintenance/status", {})
            listed = await self._gateway.ask("cluster/member/list", {})
        except CoordinationError as error:
            if not self._error:
                status, listed = {}, {}
            else:
                return EngineStatus(engine="etcd", state="stopped", applied_index=self._applied, error=str(error))
        spread = quantiles(self._latencies_ms, n=100) if len(self._latencies_ms) > 1 else []
        names = {str(member["ID"]): member.get("name", "") for member in listed.get("members", [])}
        leader = names.get(str(status.get("leader", "")), "")
        return EngineStatus(
            engine="etcd",
            state="client",
            leader=leader,
            term=int(status.get("raftTerm", 0)),
            commit_index=int(status.get("raftIndex", 0)),
            applied_index=self._applied,
            log_bytes=int(status.get("dbSize", 0)),
            members=[
                EngineMember(name=name, role="leader" if name == leader else "voter", connected=True)
                for name in sorted(names.values())
            ],
            requests=self._confirmed,
            requests_failed=self._failed,
            commit_ms_p50=spread[49] if spread else -1.0,
            commit_ms_p99=spread[98] if spread else -1.0,
            error=self._error,
        )

    async def add_member(self, name: str, timeout_s: float) -> None:
        """See `engine.Engine`."""
        del timeout_s
        raise _etcds_own(f"adding {name}", "member add")

    async def remove_member(self, name: str, timeout_s: float) -> None:
        """See `engine.Engine`."""
        del timeout_s
        raise _etcds_own(f"removing {name}", "member remove")

    async def transfer_leader(self, name: str, timeout_s: float) -> str:
        """See `engine.Engine`."""
        del timeout_s
        raise _etcds_own(f"moving the lead to {name or 'another'}", "move-leader")


def _etcds_own(what: str, verb: str) -> CoordinationError:
    return CoordinationError(f"{what} is etcd's own business", hint=f"use `etcdctl {verb}`")


def _finish(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)
