"""Suite `acp`: the PBFT group over loopback, each replica in a process of its own, mutual TLS 1.3 as in production.

Rule: what is measured is `Node` and `GroupClient` as an agent uses them. A faulty replica is one that does not run: it
costs the others the most, for every quorum then needs all of them. One client asks, with 1, 10 or 64 requests of 1 KiB
under way.

    pbft/<replicas>/<faulty>/<batch>/<in flight>    latency of a request, requests a second; `adaptive` or a fixed size
    durable/...                                     the same with each record synced to disk before it is promised
    conflict/<replicas>/<proposers>                 tickets for one domain from several hosts at once: one wins
    certificate/<replicas>                          a ticket with signatures of a quorum; and verifying it
    quorum/<n>                                      is this set of votes a quorum?

`--only` takes cases whose names begin so: `pbft/4/0` is the smallest group in health, with each size of batches.
"""

import asyncio
import gc
import multiprocessing
import os
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Final, Literal, NamedTuple, TypeVar

from bench.event_loop import run
from bench.frame import Options as BenchOptions
from bench.frame import Row
from dwcp_migrate.consensus import Context, Member, Membership, Options, PbftReplica, SigningIdentity
from dwcp_migrate.consensus.io.client_node import GroupClient
from dwcp_migrate.consensus.io.journal_file import JournalFile
from dwcp_migrate.consensus.io.replica_node import Node, NodeOptions
from dwcp_migrate.consensus.pbft.model.messages import BATCH_REQUESTS_MAX
from dwcp_migrate.consensus.pbft.model.quorum import quorum_of
from dwcp_migrate.consensus.tickets.machine import Tickets
from dwcp_migrate.consensus.tickets.operations import (
    Issue,
    Refusal,
    Register,
    Ticket,
    decode_result,
    encode_operation,
)
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport.tls import make_context
from dwcp_migrate.units import KIB

SIZES: Final = (4, 7, 10)
IN_FLIGHT: Final = (1, 10, 64)
BATCHES: Final = (1, BATCH_REQUESTS_MAX)
"""No batching, and adaptive: as much as there is."""
FIXED_BATCHES: Final = (4, 16, 64)
"""Bounds of fixed batching, which the adaptive one is compared with."""
OPERATION: Final = os.urandom(KIB)
OPERATIONS: Final = {1: 400, 10: 3000, 64: 6000}
RUNS: Final = 3
WAIT_S: Final = 60.0
CLIENT_S_MAX: Final = 600.0
DOMAIN: Final = "00000000-0000-4000-8000-000000000001"

T = TypeVar("T")
_spawn = multiprocessing.get_context("spawn")


class Setting(NamedTuple):
    """A group to measure."""

    replicas: int
    faulty: int
    batch_max: int
    sync: bool = False
    clients: int = 1


class Figures(NamedTuple):
    """One run."""

    p50_ms: float
    p99_ms: float
    ops_per_s: float


class Echo:
    """The cheapest application: answers with the sequence number."""

    def apply(self, operation: bytes, context: Context) -> bytes:
        """Answer; see `Application`."""
        del operation
        return context.sequence.to_bytes(8, "big")

    def snapshot(self) -> bytes:
        """Nothing is kept; see `Application`."""
        return b""

    def restore(self, data: bytes) -> None:
        """Nothing is kept; see `Application`."""
        del data


def rows(options: BenchOptions) -> list[Row]:
    """Run the suite, or the cases that begin with `options.only`; about ten minutes, `quick` one.

    Raises:
        NotFoundError: no case begins so.
    """
    with tempfile.TemporaryDirectory() as name:
        fleet = _Fleet(Path(name))
        found = [row for row in _rows(fleet, options) if row.case.startswith(options.only)]
    if not found:
        raise NotFoundError(f"no case {options.only}", hint="pbft/4/0/adaptive/10, for instance")
    return found


def _is_wanted(group: str, only: str) -> bool:
    """Tell whether a group has cases that begin with `only`."""
    return group.startswith(only) or only.startswith(group)


def _rows(fleet: "_Fleet", options: BenchOptions) -> Iterator[Row]:
    sizes = SIZES[:1] if options.quick else SIZES
    for size in sizes:
        for faulty in range(quorum_of(size).faulty + 1):
            for batch in BATCHES:
                yield from _pbft_rows(fleet, Setting(size, faulty, batch), options)
    for batch in FIXED_BATCHES[: 1 if options.quick else None]:
        yield from _pbft_rows(fleet, Setting(4, 0, batch), options)
    yield from _pbft_rows(fleet, Setting(4, 0, BATCH_REQUESTS_MAX, sync=True), options)
    for size in sizes:
        if _is_wanted(f"conflict/{size}/", options.only) or _is_wanted(f"certificate/{size}", options.only):
            yield from _ticket_rows(fleet, size, options)
    for size in SIZES:
        if _is_wanted(f"quorum/{size}", options.only):
            yield _quorum_row(size)


def _pbft_rows(fleet: "_Fleet", setting: Setting, options: BenchOptions) -> Iterator[Row]:
    runs = 1 if options.quick else RUNS
    batch = "adaptive" if setting.batch_max == BATCH_REQUESTS_MAX else str(setting.batch_max)
    name = f"{'durable' if setting.sync else 'pbft'}/{setting.replicas}/{setting.faulty}/{batch}/"
    if not _is_wanted(name, options.only):
        return
    sync = "fdatasync before each promise" if setting.sync else "journal written, not synced"
    counts = {in_flight: OPERATIONS[in_flight] // (8 if options.quick else 1) for in_flight in IN_FLIGHT}
    with fleet.group(setting, Echo) as group:
        measured = _ask(_load, group, counts, runs)
    for in_flight, figures in measured.items():
        case = f"{name}{in_flight}"
        method = (
            f"{counts[in_flight]} requests of 1 KiB by one client after a warm-up, loopback, mutual TLS 1.3, {sync}"
        )
        for metric, unit, value in (
            ("latency_p50_ms", "ms", median(one.p50_ms for one in figures)),
            ("latency_p99_ms", "ms", median(one.p99_ms for one in figures)),
            ("ops_per_s", "1/s", median(one.ops_per_s for one in figures)),
        ):
            yield Row(case=case, metric=metric, value=value, unit=unit, n=runs, method=method)


async def _load(group: "_Group", counts: dict[int, int], runs: int) -> dict[int, list[Figures]]:
    measured = {}
    async with group.client(0) as client:
        for in_flight, count in counts.items():
            await _run(client, in_flight, max(count // 4, 50))
            measured[in_flight] = [await _run(client, in_flight, count) for _ in range(runs)]
    return measured


async def _run(client: GroupClient, in_flight: int, count: int) -> Figures:
    """Keep so many requests under way until so many are decided."""
    times: list[float] = []
    left = count

    async def ask() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            await client.submit(OPERATION)
            times.append(time.perf_counter() - began)

    gc.collect()
    began = time.perf_counter()
    async with asyncio.timeout(WAIT_S * 10), asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(ask())
    seconds = time.perf_counter() - began
    times.sort()
    return Figures(times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3, count / seconds)


# --- tickets


def _ticket_rows(fleet: "_Fleet", size: int, options: BenchOptions) -> Iterator[Row]:
    count = 20 if options.quick else 200
    with fleet.group(Setting(size, 0, BATCH_REQUESTS_MAX, clients=4), Tickets) as group:
        conflicts, certified, verified = _ask(_contend, group, count)
    method = f"{count} times four hosts ask for tickets of one domain's slot at once; until all four have their answer"
    yield Row(
        case=f"conflict/{size}/4",
        metric="latency_p50_ms",
        value=median(conflicts) * 1e3,
        unit="ms",
        n=count,
        method=method,
    )
    method = "a ticket is issued and cancelled; until the client has a quorum's signatures and has verified them"
    case = f"certificate/{size}"
    yield Row(case=case, metric="latency_p50_ms", value=median(certified) * 1e3, unit="ms", n=count, method=method)
    method = "the destination verifies a certificate: one Ed25519 verification for each signature of a quorum"
    yield Row(case=case, metric="verify_us", value=median(verified) * 1e6, unit="us", n=count, method=method)


async def _contend(group: "_Group", count: int) -> tuple[list[float], list[float], list[float]]:
    """Let four hosts move domains of their own into one slot of a fifth at once; exactly one may win."""
    from dwcp_migrate.consensus.tickets.operations import (
        Cancel,
    )

    conflicts, certified, verified = [], [], []
    async with group.client(0) as c0, group.client(1) as c1, group.client(2) as c2, group.client(3) as c3:
        clients = (c0, c1, c2, c3)
        domains = [DOMAIN[:-1] + str(place) for place in range(len(clients))]
        wanted = [encode_operation(Issue(domain, "elsewhere.bench", 0, 0, 60_000)) for domain in domains]
        for client, domain in zip(clients, domains, strict=True):
            await client.decide(encode_operation(Register(domain)))
        for _ in range(count):
            began = time.perf_counter()
            asked = [client.decide(operation) for client, operation in zip(clients, wanted, strict=True)]
            answers = [decode_result(decision.result) for decision in await asyncio.gather(*asked)]
            conflicts.append(time.perf_counter() - began)
            tickets = [answer for answer in answers if isinstance(answer, Ticket)]
            refusals = [answer for answer in answers if isinstance(answer, Refusal)]
            assert len(tickets) == 1, "one slot, one ticket"
            assert all(refusal == Refusal("slot-busy", tickets[0].token) for refusal in refusals)
            winner = clients[domains.index(tickets[0].domain)]
            await winner.decide(encode_operation(Cancel(tickets[0].domain, tickets[0].token)))
        for _ in range(count):
            began = time.perf_counter()
            decision = await c0.decide(wanted[0], certify=True)
            certified.append(time.perf_counter() - began)
            ticket = decode_result(decision.result)
            assert isinstance(ticket, Ticket)
            assert decision.certificate is not None
            verified.append(_time_verification(group, decision.certificate.verify))
            await c0.decide(encode_operation(Cancel(ticket.domain, ticket.token)))
    return conflicts, certified, verified


def _time_verification(group: "_Group", verify: Callable[[dict[str, bytes], int, bytes], None]) -> float:
    from dwcp_migrate.consensus.pbft.model import keys

    membership = group.membership
    public = {member.name: member.key for member in membership.replicas}
    keys.forget_verified()
    began = time.perf_counter()
    verify(public, membership.epoch, membership.cluster)
    return time.perf_counter() - began


def _quorum_row(size: int) -> Row:
    """Time a replica's work for each vote: count the votes that name the digest."""
    from dwcp_migrate.consensus.pbft.model.log import count_votes

    name = os.urandom(32)
    votes = {f"r{place}": name for place in range(size)}
    needed = quorum_of(size).quorum
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        for _ in range(20_000):
            assert count_votes(votes, name) >= needed
        times.append((time.perf_counter() - began) / 20_000)
    method = "votes for a digest counted and compared with the quorum, as for each vote that arrives"
    return Row(case=f"quorum/{size}", metric="check_ns", value=median(times) * 1e9, unit="ns", n=RUNS, method=method)


# --- the client's process


def _ask(work: Callable[..., Coroutine[object, object, T]], *arguments: object) -> T:
    """Let a process of its own be the client: fast event loops stay out of this one."""
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_answer, args=(theirs, work, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(CLIENT_S_MAX):
            raise TimeoutError("the group stands still")
        result: T = ours.recv()
        return result
    finally:
        process.kill()
        process.join()
        ours.close()


def _answer(pipe: Connection, work: Callable[..., Coroutine[object, object, object]], arguments: tuple[object]) -> None:
    async def answer() -> None:
        pipe.send(await work(*arguments))

    run(answer())


# --- groups of processes


class _Group(NamedTuple):
    """A group that runs."""

    membership: Membership
    addresses: dict[str, tuple[str, int]]
    directory: Path
    running: int

    @asynccontextmanager
    async def client(self, place: int) -> AsyncIterator[GroupClient]:
        """Connect a client to all replicas that run."""
        name = f"client{place}.bench"
        options = _node_options(self.directory, name, ("127.0.0.1", 0), self.addresses, sync=False)
        client = GroupClient(name, _identity(name), self.membership, options)
        async with asyncio.timeout(WAIT_S):
            await client.start(self.running)
        try:
            yield client
        finally:
            await client.stop()


class _Post(NamedTuple):
    """What a replica's process is given."""

    name: str
    group: _Group
    options: Options
    journals: Path
    sync: bool
    application: type[Echo] | type[Tickets]


class _Fleet:
    """Certificates for the largest group, made once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._groups = 0
        create_authority(directory)
        for place in range(SIZES[-1]):
            issue(directory, f"r{place}.bench")
        for place in range(4):
            issue(directory, f"client{place}.bench")

    @contextmanager
    def group(self, setting: Setting, application: type[Echo] | type[Tickets]) -> Iterator[_Group]:
        """Run a group's processes; the faulty ones, backups of the first view, do not run."""
        self._groups += 1
        names = [f"r{place}.bench" for place in range(setting.replicas)]
        clients = tuple(Member(name, _identity(name).public) for name in _client_names(setting.clients))
        replicas = tuple(Member(name, _identity(name).public) for name in names)
        membership = Membership(os.urandom(16), 0, replicas, clients)
        with _listeners(names) as addresses:
            group = _Group(membership, addresses, self._directory, setting.replicas - setting.faulty)
        with tempfile.TemporaryDirectory(dir=self._directory) as journals:
            options = Options(batch_max=setting.batch_max, request_timeout_s=10.0)
            processes = []
            for name in names[: group.running]:
                ours, theirs = _spawn.Pipe()
                post = _Post(name, group, options, Path(journals), setting.sync, application)
                process = _spawn.Process(target=_serve, args=(post, theirs), daemon=True)
                process.start()
                theirs.close()
                processes.append((process, ours))
            try:
                for _, pipe in processes:
                    pipe.recv()
                yield group
            finally:
                for process, pipe in processes:
                    pipe.close()
                    process.join(WAIT_S)


def _client_names(count: int) -> list[str]:
    return [f"client{place}.bench" for place in range(count)]


@contextmanager
def _listeners(names: list[str]) -> Iterator[dict[str, tuple[str, int]]]:
    """Find a free port for each replica."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    try:
        yield {name: sock.getsockname() for name, sock in zip(names, sockets, strict=True)}
    finally:
        for sock in sockets:
            sock.close()


def _identity(name: str) -> SigningIdentity:
    return SigningIdentity(name.encode().ljust(32, b"\0"))


def _node_options(
    directory: Path, name: str, listen: tuple[str, int], addresses: dict[str, tuple[str, int]], *, sync: bool
) -> NodeOptions:
    def context(side: Literal["client", "server"]) -> ssl.SSLContext:
        return make_context(side, directory / "ca.pem", directory / f"{name}.pem", directory / f"{name}.key")

    return NodeOptions(
        listen=listen,
        addresses={other: address for other, address in addresses.items() if other != name},
        server_context=lambda: context("server"),
        client_context=lambda: context("client"),
        certificate=directory / f"{name}.pem",
        sync=sync,
    )


def _serve(post: _Post, pipe: Connection) -> None:
    """A replica's process: runs until the other end of the pipe closes."""
    run(_serve_until_closed(post, pipe))


async def _serve_until_closed(post: _Post, pipe: Connection) -> None:
    name, group = post.name, post.group
    replica = PbftReplica(name, _identity(name), group.membership, post.application(), post.options)
    options = _node_options(group.directory, name, group.addresses[name], group.addresses, sync=post.sync)
    node = Node(replica, JournalFile(post.journals / f"{name}.journal", sync=post.sync), options)
    await node.start()
    gc.freeze()
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), closed.set)
    pipe.send(None)
    await closed.wait()
    loop.remove_reader(pipe.fileno())
    await node.stop()
