"""Suite `plane`: parts of the data plane that many connections, many cores and fast links lean on.

    gate/<connections>    readers at one gate before 400 MB/s: in flight over its bound, CPU of an acknowledgement and
                          what follows it
    serial/<content>      the step before compression, which one thread does at a time: its time, and the GIL held in it
    bypass/<channels>     a stream over a link that outruns the pipeline, in so many connections: against plain ones

Rule: the GIL held is what another thread lacks. One that only counts runs alone and beside the step, by turns of a
tenth of a second; what it falls short beside it, over the step's own progress, is the GIL that the step held. Both
need a core: on a machine with less than two idle ones the figure is too high.
"""

import contextlib
import queue
import socket
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from bench.frame import Options, Row
from bench.suites.hde import memory_pages, precopy_records, text_pages
from bench.suites.live import WAIT_S, cpu_s, drain, feed, fork
from dwcp_migrate.dataplane.flow_control import FLOOR_BYTES, Gate
from dwcp_migrate.dataplane.qemu_socket import CancelledError
from dwcp_migrate.delta import PageEncoder
from dwcp_migrate.protocol.worker import Departure, Finished
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.transport import InFlightWindow
from dwcp_migrate.units import MIB, PAGE_BYTES
from tests.dataplane.pair import Pair

CONNECTIONS: Final = (1, 8, 64, 255)
PATH_BYTES_PER_S: Final = 400e6
GATE_BYTES: Final = 2048 * MIB
TURN_S: Final = 0.1
TURNS: Final = 20
BYPASS_BYTES: Final = 2048 * MIB
BYPASS_CHANNELS: Final = (1, 5)
"""A single connection, and multifd with four channels."""
RUNS: Final = 3
BOUNDS: Final = 100
"""What is in flight was let in under the bounds of so many acknowledgements ago, which follow the rate."""


def rows(options: Options) -> list[Row]:
    """Measure all, or the parts whose names begin with `only`."""
    parts: dict[str, Callable[[Options], Iterator[Row]]] = {"gate": _gates, "serial": _serial, "bypass": _bypasses}
    return [row for name, part in parts.items() if name.startswith(options.only) for row in part(options)]


def _gates(options: Options) -> Iterator[Row]:
    method = "as many threads as connections read what one gate grants, another one acknowledges 400 MB/s in order"
    for connections in CONNECTIONS:
        total = GATE_BYTES // 8 if options.quick else GATE_BYTES
        over, cpu_ms = _gate(connections, total)
        case = f"gate/{connections}"
        yield Row(case=case, metric="in_flight_over_bound", value=over, unit="1", n=1, method=method)
        yield Row(case=case, metric="cpu_per_acknowledgement", value=cpu_ms, unit="ms", n=1, method=method)


def _gate(connections: int, total_bytes: int) -> tuple[float, float]:
    """Most in flight over its bound, floors included; CPU time of all threads an acknowledgement, in ms."""
    window = InFlightWindow(50)
    window.rtt_s = 0.001
    gate = Gate(window)
    taken: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    ended = threading.Event()

    def read(connection: int) -> None:
        with contextlib.suppress(CancelledError):
            while not ended.is_set():
                granted = gate.wait(connection)
                gate.sent(connection, granted)
                taken.put((connection, granted))

    threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(connections)]
    over, delivered, acknowledgements = 0.0, 0, 0
    bounds: deque[int] = deque(maxlen=BOUNDS)
    began_cpu, began = time.process_time(), time.monotonic()
    for thread in threads:
        thread.start()
    while delivered < total_bytes:
        connection, count = taken.get()
        if (early := began + delivered / PATH_BYTES_PER_S - time.monotonic()) > 0:
            time.sleep(early)
        bounds.append(window.limit_bytes + connections * FLOOR_BYTES)
        over = max(over, gate.in_flight_bytes / max(bounds))
        gate.acknowledged(connection, count)
        delivered += count
        acknowledgements += 1
    cpu_ms = (time.process_time() - began_cpu) / acknowledgements * 1000
    ended.set()
    gate.close()
    return over, cpu_ms


def _serial(options: Options) -> Iterator[Row]:
    pages = (32 if options.quick else 128) * MIB // PAGE_BYTES
    rng = np.random.Generator(np.random.PCG64(1))
    memory = memory_pages(pages, text_pages(pages, rng), rng)
    changed = memory.copy()
    changed[:, 1::50] += np.uint64(1)
    for content, passes in (("first", [memory]), ("resent", [memory, changed])):
        stream = precopy_records(passes)
        seconds, held = _gil(stream)
        per_gb = 1e9 / len(stream)
        for metric, value, method in (
            ("serial_s_per_gb", seconds * per_gb, "thread CPU time of parsing and classifying a precopy stream"),
            ("gil_s_per_gb", held * seconds * per_gb, "the same times what a thread that counts lacks beside it"),
        ):
            yield Row(case=f"serial/{content}", metric=metric, value=value, unit="s/GB", n=TURNS, method=method)


def _gil(stream: bytes) -> tuple[float, float]:
    """Thread CPU time of the step over the whole stream, and the share of it with the GIL held."""
    counted, ended, go = [0], threading.Event(), threading.Event()

    def count() -> None:
        while not ended.is_set():
            counted[0] += 1

    def work() -> None:
        while not ended.is_set():
            go.wait()
            _classify(stream, go)

    began = time.thread_time()
    _classify(stream, None)
    seconds = time.thread_time() - began
    for target in (count, work):
        threading.Thread(target=target, daemon=True).start()
    lacks = []
    for _ in range(TURNS):
        alone = _rate(counted)
        go.set()
        beside = _rate(counted)
        go.clear()
        lacks.append(1 - min(1.0, beside / alone))
    ended.set()
    go.set()
    return seconds, statistics.median(lacks)


def _rate(counted: list[int]) -> float:
    before, began = counted[0], time.monotonic()
    time.sleep(TURN_S)
    return (counted[0] - before) / (time.monotonic() - began)


def _classify(stream: bytes, go: threading.Event | None) -> None:
    """What the readers do one at a time; stops between two segments while `go` is not set."""
    parser, encoder = StreamParser(RamBlocks()), PageEncoder(256 * MIB)
    view, position = memoryview(stream), 0
    while position < len(view):
        if go is not None and not go.is_set():
            return
        piece = view[position : position + 2 * MIB]
        fed = parser.feed(piece, flush=position + len(piece) == len(view))
        for cut in fed.cuts:
            encoder.classify(piece, cut)
        position += fed.consumed


def _bypasses(options: Options) -> Iterator[Row]:
    stream = bytes(np.random.Generator(np.random.PCG64(1)).bytes(64 * MIB))
    repeats = (BYPASS_BYTES // 8 if options.quick else BYPASS_BYTES) // len(stream)
    runs = 1 if options.quick else RUNS
    method = "seeded bytes over loopback, plain connections and two data processes that may leave the link by turns"
    for channels in BYPASS_CHANNELS:
        over, cost = [], []
        for _ in range(runs):
            plain_s = _plain(stream, repeats, channels)
            seconds, cpu = _aside(stream, repeats, channels)
            over.append(seconds / plain_s)
            cost.append(cpu / (len(stream) * repeats) * 1e9)
        case = f"bypass/{channels}"
        yield Row(case=case, metric="time_over_stock", value=statistics.median(over), unit="1", n=runs, method=method)
        yield Row(case=case, metric="cpu_s_per_gb", value=statistics.median(cost), unit="s/GB", n=runs, method=method)


def _plain(stream: bytes, repeats: int, channels: int) -> float:
    pairs = []
    for _ in range(channels):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            pairs.append((ours, server.accept()[0]))
    return _send(stream, repeats, pairs)


def _aside(stream: bytes, repeats: int, channels: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(Path(name), channels=0, codec="auto", cache_bytes=1024 * MIB, departure=Departure(in_clear=True))
        try:
            pairs = [pair.connect() for _ in range(channels)]
            before_s = cpu_s(pair.source) + cpu_s(pair.destination)
            seconds = _send(stream, repeats, pairs)
            ends = pair.source.wait(Finished, WAIT_S), pair.destination.wait(Finished, WAIT_S)
            assert all(end.result == "carried" for end in ends), ends
            return seconds, sum(end.counters.cpu_s for end in ends) - before_s
        finally:
            pair.close()


def _send(stream: bytes, repeats: int, pairs: list[tuple[socket.socket, socket.socket]]) -> float:
    """Seconds from the first byte to the last answer; each end in a process of its own."""
    for sock in (sock for pair in pairs for sock in pair):
        sock.settimeout(None)
    share = -(-repeats // len(pairs))
    drains = [fork.Process(target=drain, args=(destination,)) for _, destination in pairs]
    feeds = [fork.Process(target=feed, args=(source, stream, share)) for source, _ in pairs]
    began = time.perf_counter()
    for end in (*drains, *feeds):
        end.start()
    for _, destination in pairs:
        destination.close()
    for end in feeds:
        end.join(WAIT_S)
    seconds = time.perf_counter() - began
    for source, _ in pairs:
        source.close()
    for end in drains:
        end.join(WAIT_S)
    assert {end.exitcode for end in (*drains, *feeds)} == {0}
    return seconds
