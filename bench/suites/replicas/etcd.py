"""etcd of this machine beside the Raft engine, for the suite `ass`: the same values, sizes and numbers in flight.

A put is timed in one asyncio process from the request to the answer, through the JSON gateway that the etcd engine
uses, at the member that leads. Members talk without TLS, which the Raft engine's replicas do not; each syncs to disk.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.frame import Row
from dwcp_migrate.errors import CoordinationError, LabError
from dwcp_migrate.state.etcd.gateway import EtcdGateway, encode

PROGRAM: Final = Path(sys.executable).with_name("etcd")
"""Where `make setup` puts it."""
READY_S_MAX: Final = 30.0
KEYS: Final = 100
"""That the puts go to in turn."""


def commits(members: int, sizes: dict[int, int], window: int) -> Iterator[Row]:
    """Measure puts of an etcd of so many members.

    Args:
        members: how many.
        sizes: of values, in bytes, and how many puts of each.
        window: puts in flight at once for the throughput.

    Raises:
        LabError: it does not start.
    """
    with tempfile.TemporaryDirectory() as directory, _cluster(Path(directory), members) as endpoints:
        for size, count in sizes.items():
            alone, together_s = asyncio.run(_measure(endpoints, size, count, window))
            case = f"etcd/{members}/{size}"
            ms = [1000 * seconds for seconds in alone]
            how = "sequential at the leader through the JSON gateway, fsync on"
            yield Row(case=case, metric="commit_p50_ms", value=median(ms), unit="ms", n=count, method=how)
            yield Row(case=case, metric="commit_p99_ms", value=quantiles(ms, n=100)[98], unit="ms", n=count, method=how)
            many = f"{window} in flight at the leader through the JSON gateway, fsync on"
            yield Row(case=case, metric="commits_per_s", value=count / together_s, unit="1/s", n=count, method=many)


@contextmanager
def _cluster(directory: Path, members: int) -> Iterator[list[str]]:
    """Run the members; yields the URLs that they serve clients at."""
    ports = _free_ports(2 * members)
    clients = [f"http://127.0.0.1:{port}" for port in ports[:members]]
    peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
    initial = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
    with ExitStack() as stack:
        for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            arguments = {
                "name": f"m{number}",
                "data-dir": directory / f"m{number}",
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": initial,
            }
            log = stack.enter_context((directory / f"m{number}.log").open("wb"))
            command = [str(PROGRAM), *(f"--{key}={value}" for key, value in arguments.items())]
            process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
            stack.callback(process.terminate)
        yield clients


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in found]


async def _measure(endpoints: list[str], size: int, count: int, window: int) -> tuple[list[float], float]:
    """Seconds of each put alone, and of all of them with `window` in flight."""
    gateway = EtcdGateway([await _leader(endpoints)])
    await gateway.start()
    try:
        for number in range(max(20, count // 10)):
            await _put(gateway, number, size)
        alone = []
        for number in range(count):
            began = time.perf_counter()
            await _put(gateway, number, size)
            alone.append(time.perf_counter() - began)
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await _put(gateway, number, size)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(window)))
        return alone, time.perf_counter() - began
    finally:
        await gateway.close()


async def _put(gateway: EtcdGateway, number: int, size: int) -> None:
    key = encode(f"bench/{number % KEYS}".encode())
    await gateway.ask("kv/put", {"key": key, "value": encode(os.urandom(size))})


async def _leader(endpoints: list[str]) -> str:
    """Wait until a member leads; returns its URL."""
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline:
        for endpoint in endpoints:
            gateway = EtcdGateway([endpoint])
            await gateway.start()
            try:
                status = await gateway.ask("maintenance/status", {})
                if status.get("leader", "0") == status["header"]["member_id"]:
                    return endpoint
            except CoordinationError:
                pass
            finally:
                await gateway.close()
        await asyncio.sleep(0.1)
    raise LabError(f"no member of etcd led within {READY_S_MAX:g} s", hint="make setup fetches it")
