"""Suite `live`: a whole stream through two data processes on loopback, beside a plain connection and a relay.

No QEMU: one process writes a precopy stream of the suite `hde`'s guest memory as QEMU writes it, another one reads it
and answers at the end. Between them is nothing (`stock`), a relay (`relay`), or a source and a destination as agents
start them (`accelerated`), with the codec `auto` or a pinned one. All ways take turns in one run, so that what else the
machine does falls on all alike. CPU time is the data processes' own, all threads.

    first     memory once; `resent` sends it three times, 2 % of the words changed each time
"""

import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np

from bench.frame import Options, Row
from bench.suites.hde import memory_pages, precopy_records, text_pages
from dwcp_migrate.protocol.worker import AddConnection, Departure, Finished, StartRelay
from dwcp_migrate.units import KIB, MIB, PAGE_BYTES
from tests.dataplane.pair import DataProcess, Pair

WRITE_BYTES: Final = 128 * KIB
"""What QEMU hands to one writev: 32 pages and their headers."""
STREAM_BYTES: Final = 512 * MIB
PASSES: Final = 3
RUNS: Final = 3
DEPARTURES: Final = {
    "": Departure(),
    "aside": Departure(in_clear=True),
    "tls": Departure(in_tls=True),
    "tls-start": Departure(in_tls=True, from_start="bench"),
}
CODECS: Final = ("auto-aside", "auto-tls", "auto-tls-start", "auto", "none", "lz4", "zstd")
WAIT_S: Final = 180.0
METHOD: Final = "seeded guest memory, loopback, from the first byte written to the answer of the reading end"

fork = multiprocessing.get_context("fork")


class Carried(NamedTuple):
    """One stream carried one way."""

    seconds: float
    cpu_s: float
    wire_bytes: int
    detail: str = ""


def rows(options: Options) -> list[Row]:
    """Measure all ways, or those whose names begin with `only`."""
    size = STREAM_BYTES // 8 if options.quick else STREAM_BYTES
    runs = 1 if options.quick else RUNS
    result: list[Row] = []
    for content, stream in _streams(size):
        ways = [way for way in ("stock", "relay", *CODECS) if way == "stock" or way.startswith(options.only)]
        carried: dict[str, list[Carried]] = {way: [] for way in ways}
        for _ in range(runs):
            for way in ways:
                carried[way].append(_carry(way, stream))
        for way in ways:
            result += _rows(content, way, carried, len(stream))
    return result


def _rows(content: str, way: str, carried: dict[str, list[Carried]], raw_bytes: int) -> Iterator[Row]:
    runs, stock = carried[way], carried["stock"]
    over = median(one.seconds / other.seconds for one, other in zip(runs, stock, strict=True))
    case = f"live/{content}/{way}"
    for metric, value, unit in (
        ("time", median(one.seconds for one in runs), "s"),
        ("time_over_stock", over, "1"),
        ("cpu_s_per_gb", median(one.cpu_s for one in runs) / raw_bytes * 1e9, "s/GB"),
        ("ratio", median(one.wire_bytes for one in runs) / raw_bytes, "1"),
    ):
        yield Row(case=case, metric=metric, value=value, unit=unit, n=len(runs), method=METHOD)


def _streams(size: int) -> Iterator[tuple[str, bytes]]:
    pages = size // PAGE_BYTES
    rng = np.random.Generator(np.random.PCG64(1))
    memory = memory_pages(pages, text_pages(pages, rng), rng)
    yield "first", precopy_records([memory])
    passes = [memory[: pages // PASSES]]
    for number in range(1, PASSES):
        changed = passes[-1].copy()
        changed[:, number::50] += np.uint64(1)
        passes.append(changed)
    yield "resent", precopy_records(passes)


def _carry(way: str, stream: bytes) -> Carried:
    if way == "stock":
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            return Carried(_send(stream, ours, server.accept()[0]), 0.0, len(stream))
    if way == "relay":
        return _relay(stream)
    with tempfile.TemporaryDirectory() as name:
        codec, _, aside = way.partition("-")
        pair = Pair(Path(name), channels=0, codec=codec, cache_bytes=1024 * MIB, departure=DEPARTURES[aside])
        try:
            return _accelerate(stream, pair)
        finally:
            pair.close()


def _relay(stream: bytes) -> Carried:
    with _process() as process, socket.create_server(("127.0.0.1", 0)) as server:
        ours, inner = _connection()
        onward = socket.create_connection(server.getsockname())
        process.tell(StartRelay(reason="bench"))
        process.tell(AddConnection(connection=0), inner, onward)
        before_s = cpu_s(process)
        seconds = _send(stream, ours, server.accept()[0])
        finished = process.wait(Finished)
        return Carried(seconds, finished.counters.cpu_s - before_s, len(stream))


def _accelerate(stream: bytes, pair: Pair) -> Carried:
    source, destination = pair.connect()
    pair.source.wait_event("link-up", WAIT_S)  # the processes have imported what they need
    before_s = cpu_s(pair.source) + cpu_s(pair.destination)
    seconds = _send(stream, source, destination)
    ends = pair.source.wait(Finished, WAIT_S), pair.destination.wait(Finished, WAIT_S)
    assert all(end.result == "carried" for end in ends), ends
    return Carried(seconds, sum(end.counters.cpu_s for end in ends) - before_s, ends[0].counters.wire_bytes)


def cpu_s(process: DataProcess) -> float:
    """CPU time of a process so far: its imports are no part of a migration."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()), server.accept()[0]


@contextmanager
def _process() -> Iterator[DataProcess]:
    process = DataProcess()
    try:
        yield process
    finally:
        process.close()


def _send(stream: bytes, source: socket.socket, destination: socket.socket) -> float:
    """Seconds from the first byte to the answer; both ends work in processes of their own."""
    for sock in (source, destination):
        sock.settimeout(None)
    ends = [
        fork.Process(target=target, args=args) for target, args in ((drain, (destination,)), (feed, (source, stream)))
    ]
    began = time.perf_counter()
    for end in ends:
        end.start()
    destination.close()
    ends[1].join(WAIT_S)
    seconds = time.perf_counter() - began
    source.close()
    ends[0].join(WAIT_S)
    assert [end.exitcode for end in ends] == [0, 0]
    return seconds


def feed(source: socket.socket, stream: bytes, repeats: int = 1) -> None:
    """Write a stream as QEMU does, so many times, and wait for the answer."""
    view = memoryview(stream)
    for _ in range(repeats):
        for begin in range(0, len(view), WRITE_BYTES):
            source.sendall(view[begin : begin + WRITE_BYTES])
    source.shutdown(socket.SHUT_WR)
    assert source.recv(1) == b"."


def drain(destination: socket.socket) -> None:
    """Read to the end, and answer."""
    buffer = bytearray(WRITE_BYTES)
    while destination.recv_into(buffer):
        pass
    destination.sendall(b".")
