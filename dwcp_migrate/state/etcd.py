"""The etcd engine: the same log and the same model, kept in an etcd that the fleet runs already.

The rule: etcd orders, the model decides. The log is a row of keys; an entry is appended by a transaction that demands
that its key does not exist yet, so that every host applies the same entries in the same order, as with Raft. Spoken is
etcd v3's JSON gateway over HTTP, no client library.

    PREFIX/log/0000000000000042   one entry, as `commands.encode_batch` writes it
    PREFIX/snapshot               number of the last entry that it holds, and the state

    append    catch up (linearizable range) ─> txn: if log/N+1 was never created, put it ─> apply, or catch up and again
    compact   txn: if the snapshot is still the one that we know, put ours and delete the entries that it holds
"""

import asyncio
import base64
import ssl
from collections.abc import Callable, Sequence
from secrets import token_hex
from socket import socket
from statistics import quantiles
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from dwcp_migrate.errors import CoordinationError, DwcpError, NoQuorumError
from dwcp_migrate.state.engine import EngineMember, EngineStatus, RequestCounts
from dwcp_migrate.state.fleet import commands
from dwcp_migrate.state.fleet.model import FleetState, TicketOutcome
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.units import MIB

PREFIX: Final = "/dwcp-migrate"

COMPACT_ENTRIES: Final = 1024
"""Entries behind the snapshot before a host writes a new one."""

SNAPSHOT_BYTES_MAX: Final = 1 * MIB
"""etcd takes requests of at most 1.5 MiB (its default); a larger state leaves the log uncut."""

RANGE_ENTRIES: Final = 16
"""Entries read at once; 16 of the largest, in base64, stay below `ANSWER_BYTES_MAX`."""

ANSWER_BYTES_MAX: Final = 8 * MIB
REFRESH_S: Final = 1.0
"""Between two looks for entries of other hosts while nothing is asked."""

RETRY_S: Final = 0.05
LATENCIES_KEPT: Final = 1024

T = TypeVar("T")


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    number: int
    state: bytes


class _Asked(msgspec.Struct, frozen=True):
    data: bytes
    result: Any


class EtcdEngine:
    """See `engine.Engine`.

    Args:
        name: of this host.
        endpoints: URLs of etcd members, tried in turn.
        clock: seconds since the epoch, for commands.
        context: makes the TLS context for endpoints with https.
        prefix: of all keys.
    """

    def __init__(
        self,
        name: str,
        endpoints: Sequence[str],
        clock: Callable[[], float],
        context: Callable[[], ssl.SSLContext] | None = None,
        prefix: str = PREFIX,
    ) -> None:
        self._name = name
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._clock = clock
        self._context = context
        self._prefix = prefix
        self._machine = FleetMachine()
        self._applied = 0
        self._snapshot_number = self._snapshot_revision = 0
        self._requests = RequestCounts(token_hex(8))
        self._ended = asyncio.Event()
        self._asked: list[_Asked] = []
        self._barriers: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._latencies_ms: list[float] = []
        self._confirmed = self._failed = 0
        self._error = ""

    # -- life

    async def start(self) -> None:
        """See `engine.Engine`."""
        if not all(endpoint.startswith(("http://", "https://")) for endpoint in self._endpoints):
            raise CoordinationError("coordination.endpoints must be URLs", hint='for instance "http://127.0.0.1:2379"')
        secure = any(endpoint.startswith("https://") for endpoint in self._endpoints)
        connector = aiohttp.TCPConnector(ssl=self._context() if secure and self._context else True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=2))
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """See `engine.Engine`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def adopt(self, sock: socket) -> None:
        """See `engine.Engine`; replicas of Raft have no business here."""
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
            except (aiohttp.ClientError, TimeoutError, DwcpError, msgspec.MsgspecError) as error:
                self._error = str(error) or type(error).__name__
                await asyncio.sleep(RETRY_S)
                continue
            if not self._asked and not self._barriers:
                try:
                    await asyncio.wait_for(self._work.wait(), REFRESH_S)
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
        batch: list[_Asked] = []
        size = 0
        for asked in self._asked[: commands.BATCH_COMMANDS_MAX]:
            size += len(asked.data) + 5
            if batch and size > commands.BATCH_BYTES_MAX:
                break
            batch.append(asked)
        await self._catch_up()
        number = self._applied + 1
        payload = commands.encode_batch([asked.data for asked in batch])
        key = self._key(f"log/{number:016d}")
        answer = await self._ask(
            "kv/txn",
            {
                "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
                "success": [{"request_put": {"key": key, "value": _encode(payload)}}],
            },
        )
        if not answer.get("succeeded"):
            return
        outcomes = self._apply(payload)
        self._asked = [asked for asked in self._asked if asked not in batch]
        for asked, outcome in zip(batch, outcomes, strict=True):
            _finish(asked.result, outcome)
        if number - self._snapshot_number >= COMPACT_ENTRIES:
            await self._compact()

    async def _catch_up(self) -> None:
        """Apply all entries that are there now."""
        while True:
            answer = await self._ask(
                "kv/range",
                {
                    "key": self._key(f"log/{self._applied + 1:016d}"),
                    "range_end": self._key("log/:"),
                    "limit": str(RANGE_ENTRIES),
                },
            )
            found = answer.get("kvs", [])
            if not found:
                if self._applied == 0 and await self._load():
                    continue
                return
            if _decode(found[0]["key"]) != f"{self._prefix}/log/{self._applied + 1:016d}".encode():
                if not await self._load():
                    raise CoordinationError(f"entry {self._applied + 1} is missing in etcd")
                continue
            for pair in found:
                self._apply(_decode(pair["value"]))

    def _apply(self, payload: bytes) -> list[TicketOutcome]:
        outcomes = self._machine.apply(commands.decode_batch(payload))
        self._applied += 1
        return outcomes

    async def _load(self) -> bool:
        """Take the snapshot if it is ahead of what is here."""
        answer = await self._ask("kv/range", {"key": self._key("snapshot")})
        for pair in answer.get("kvs", []):
            stored = msgspec.msgpack.decode(_decode(pair["value"]), type=_Stored)
            self._snapshot_number, self._snapshot_revision = stored.number, int(pair["mod_revision"])
            if stored.number > self._applied:
                self._machine.restore(stored.state)
                self._applied = stored.number
                return True
        return False

    async def _compact(self) -> None:
        """Write a snapshot and delete what it holds, unless another host was first."""
        state = self._machine.save()
        if len(state) > SNAPSHOT_BYTES_MAX:
            return
        key, number = self._key("snapshot"), self._applied
        value = _encode(msgspec.msgpack.encode(_Stored(number, state)))
        revision = str(self._snapshot_revision)
        answer = await self._ask(
            "kv/txn",
            {
                "compare": [{"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision}],
                "success": [
                    {"request_put": {"key": key, "value": value}},
                    {
                        "request_delete_range": {
                            "key": self._key("log/"),
                            "range_end": self._key(f"log/{number + 1:016d}"),
                        }
                    },
                ],
            },
        )
        if answer.get("succeeded"):
            self._snapshot_number, self._snapshot_revision = number, int(answer["header"]["revision"])
        else:
            await self._load()

    def _key(self, name: str) -> str:
        return _encode(f"{self._prefix}/{name}".encode())

    async def _ask(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the first endpoint that answers; it comes first from then on."""
        assert self._session is not None, "started"
        failed: Exception | None = None
        for endpoint in list(self._endpoints):
            try:
                async with self._session.post(f"{endpoint}/v3/{method}", json=body) as response:
                    data = await _read(response)
                    if response.status == 200:  # noqa: PLR2004 - HTTP's OK
                        answer: dict[str, Any] = msgspec.json.decode(data)
                        return answer
                    failed = CoordinationError(f"etcd at {endpoint} answers {response.status}: {data[:200]!r}")
            except (aiohttp.ClientError, TimeoutError) as error:
                failed = error
            self._endpoints.remove(endpoint)
            self._endpoints.append(endpoint)
        raise CoordinationError(f"no etcd answers: {failed or 'none is configured'}")

    # -- requests

    async def submit(self, body: commands.Body, timeout_s: float) -> TicketOutcome:
        """See `engine.Engine`."""
        loop = asyncio.get_running_loop()
        while not self._requests.may_begin:
            self._ended.clear()
            await self._ended.wait()
        number, request = self._requests.begin()
        began = loop.time()
        command = commands.Command(request=request, by=self._name, at=self._clock(), body=body)
        asked = _Asked(commands.encode(command), loop.create_future())
        try:
            self._asked.append(asked)
            self._work.set()
            outcome: TicketOutcome = await asyncio.wait_for(asked.result, timeout_s)
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
            await asyncio.wait_for(barrier, timeout_s)
        except TimeoutError as error:
            raise self._no_quorum(timeout_s) from error

    def _no_quorum(self, timeout_s: float) -> NoQuorumError:
        why = f": {self._error}" if self._error else ""
        return NoQuorumError(
            f"etcd did not confirm it within {timeout_s:g} s{why}", hint="see `etcdctl endpoint status`"
        )

    async def look(self, at: Callable[[FleetState], T]) -> T:
        """See `engine.Engine`."""
        return at(self._machine.fleet)

    async def status(self) -> EngineStatus:
        """See `engine.Engine`; term, index and members are etcd's."""
        try:
            status = await self._ask("maintenance/status", {})
            listed = await self._ask("cluster/member/list", {})
        except CoordinationError as error:
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


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = b""
    async for part in response.content.iter_chunked(1 << 16):
        data += part
        if len(data) > ANSWER_BYTES_MAX:
            raise CoordinationError(f"etcd answers with more than {ANSWER_BYTES_MAX} bytes")
    return data


def _etcds_own(what: str, verb: str) -> CoordinationError:
    return CoordinationError(f"{what} is etcd's own business", hint=f"use `etcdctl {verb}`")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text)


def _finish(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)
