"""One replica in a process of its own, controlled by lines of JSON: for measurements and for tests that kill it.

    python -m bench.suites.replicas.replica SETUP     SETUP is the JSON of `Setup`

Each line of standard input is an `Order`, each line of output an `Answer`: to an order (same `id`), or, with id 0,
the news that the leader changed. Orders run side by side. The end of the input ends the process.
"""

import asyncio
import os
import socket
import sys
import time
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import msgspec

from dwcp_migrate.errors import DwcpError
from dwcp_migrate.state.fleet.commands import Acquire, Barrier, PutHost
from dwcp_migrate.state.fleet.model import TicketOutcome
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.state.raft.engine import RaftEngine
from dwcp_migrate.state.raft.peer_connections import PeerIdentity
from dwcp_migrate.state.raft.replica import RaftReplica, RaftSettings
from dwcp_migrate.transport.tls import make_context

PORT: Final = 7802
TIMEOUT_S: Final = 20.0
LEASE_S: Final = 3600.0


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Who this replica is.

    Attributes:
        addresses: of all replicas, by name; loopback addresses, so that ports never clash.
        voters: at the first start.
        tls: directory with `ca.pem` and each host's `NAME.pem` and `NAME.key`.
    """

    name: str
    addresses: dict[str, str]
    voters: list[str]
    tls: str
    directory: str
    durable: bool = True
    election_s: float = 0.3


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do; each verb is a method of `Node`."""

    id: int
    do: str
    name: str = ""
    names: list[str] = []
    bytes: int = 0
    count: int = 0
    window: int = 1
    timeout_s: float = TIMEOUT_S


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How it went; `at` is the system's monotonic clock, the same for all processes of this machine."""

    id: int
    at: float
    error: str = ""
    values: dict[str, Any] = {}


class _Timed(FleetMachine):
    """The model, noting when each command was applied."""

    def __init__(self) -> None:
        super().__init__()
        self.applied_at: dict[int, float] = {}

    def apply(self, batch: list[bytes]) -> list[TicketOutcome]:
        outcomes = super().apply(batch)
        self.applied_at[self.fleet.index] = time.monotonic()
        return outcomes


class Node:
    """The replica and the commands that it takes."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._cut: set[str] = set()
        tls = Path(setup.tls)
        files = (tls / "ca.pem", tls / f"{setup.name}.pem", tls / f"{setup.name}.key")
        identity = PeerIdentity(
            name=setup.name,
            client=lambda: make_context("client", *files),
            server=lambda: make_context("server", *files),
            identify=lambda names: next((name for name in names if self._reachable(name)), None),
            address=lambda name: (setup.addresses[name], PORT) if self._reachable(name) else None,
        )
        settings = RaftSettings(
            directory=Path(setup.directory),
            voters=tuple(setup.voters),
            election_s=setup.election_s,
            durable=setup.durable,
        )
        self._machine = _Timed()
        self._engine = RaftEngine(
            settings,
            identity,
            rejected=lambda reason: print(f"rejected: {reason}", file=sys.stderr),
            leader_changed=lambda leader, term: say(
                Answer(id=0, at=time.monotonic(), values={"leader": leader, "term": term})
            ),
            machine=self._new_machine,
        )

    def _new_machine(self) -> _Timed:
        self._machine = _Timed()
        return self._machine

    def _reachable(self, name: str) -> bool:
        return name in self._setup.addresses and name not in self._cut

    async def run(self) -> None:
        """Serve orders until the input ends."""
        listener = socket.create_server((self._setup.addresses[self._setup.name], PORT), backlog=64)
        listener.setblocking(False)
        await self._engine.start()
        accepting = asyncio.create_task(self._accept(listener))
        reader = asyncio.StreamReader(limit=1 << 20)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        orders: set[asyncio.Task[None]] = set()
        say(Answer(id=0, at=time.monotonic(), values={"ready": True}))
        while line := await reader.readline():
            task = asyncio.create_task(self._obey(msgspec.json.decode(line, type=Order)))
            orders.add(task)
            task.add_done_callback(orders.discard)
        accepting.cancel()
        await self._engine.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            self._engine.adopt(sock)

    async def _obey(self, order: Order) -> None:
        began = time.monotonic()
        try:
            values = await getattr(self, f"do_{order.do}")(order)
            answer = Answer(id=order.id, at=time.monotonic(), values={"began": began, **values})
        except DwcpError as error:
            answer = Answer(id=order.id, at=time.monotonic(), error=str(error), values={"began": began})
        say(answer)

    async def do_status(self, _: Order) -> dict[str, Any]:
        """The engine's status."""
        return dict(msgspec.to_builtins(await self._engine.status()))

    async def do_acquire(self, order: Order) -> dict[str, Any]:
        """Take a lease; its token is its place in the history."""
        outcome = await self._engine.submit(Acquire(name=order.name, lifetime_s=LEASE_S), order.timeout_s)
        return {"code": outcome.code, "token": outcome.token}

    async def do_read(self, order: Order) -> dict[str, Any]:
        """Read, linearizable: how much history there is, and all leases."""
        await self._engine.barrier(order.timeout_s)
        return await self.do_look(order)

    async def do_look(self, _: Order) -> dict[str, Any]:
        """Read the state of this replica."""
        return await self._engine.look(
            lambda fleet: {
                "index": fleet.index,
                "leases": {name: [lease.token, lease.holder] for name, lease in fleet.leases.items()},
            }
        )

    async def do_cut(self, order: Order) -> dict[str, Any]:
        """Talk to these replicas no more; none heals."""
        self._cut = set(order.names)
        for name in order.names:
            await self._engine.read(partial(_drop, name))
        return {}

    async def do_transfer(self, order: Order) -> dict[str, Any]:
        """Have another one lead."""
        return {"leader": await self._engine.transfer_leader(order.name, order.timeout_s)}

    async def do_add(self, order: Order) -> dict[str, Any]:
        """Give a replica a vote."""
        await self._engine.add_member(order.name, order.timeout_s)
        return {}

    async def do_remove(self, order: Order) -> dict[str, Any]:
        """Take its vote."""
        await self._engine.remove_member(order.name, order.timeout_s)
        return {}

    async def do_compact(self, _: Order) -> dict[str, Any]:
        """Cut the log."""
        await self._engine.read(lambda replica: replica.compact())
        return {}

    async def do_commit(self, order: Order) -> dict[str, Any]:
        """Measure commits of `bytes`, `count` of them, `window` at once."""
        body = Barrier(padding=os.urandom(order.bytes))
        left = iter(range(order.count))
        latencies_ms: list[float] = []

        async def work() -> None:
            for _ in left:
                began = time.perf_counter()
                await self._engine.submit(body, order.timeout_s)
                latencies_ms.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(order.window)))
        elapsed_s = time.perf_counter() - began
        spread = quantiles(latencies_ms, n=100)
        return {"p50_ms": spread[49], "p99_ms": spread[98], "per_s": order.count / elapsed_s}

    async def do_announce(self, order: Order) -> dict[str, Any]:
        """Commit `count` changes one after the other; when each was asked for, by its place in the history."""
        asked: dict[str, float] = {}
        for number in range(order.count):
            began = time.monotonic()
            body = PutHost(name=self._setup.name, labels={"padding": f"{number:0256d}"})
            await self._engine.submit(body, order.timeout_s)
            asked[str(self._machine.fleet.index)] = began
        return {"asked": asked}

    async def do_applied(self, _: Order) -> dict[str, Any]:
        """When each change was applied here, by its place in the history."""
        return {"applied": {str(index): at for index, at in self._machine.applied_at.items()}}


def _drop(name: str, replica: RaftReplica) -> None:
    replica.links.drop(name)


def say(answer: Answer) -> None:
    """Write one line, whole; also from the replica's thread."""
    os.write(sys.stdout.fileno(), msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    asyncio.run(Node(msgspec.json.decode(sys.argv[1], type=Setup)).run())
