"""Suite `paths`: two ways between two hosts at once, and one of them cut, crawling or flapping (root).

Real agents in two network namespaces, joined by two of the lab's relays of 100 Mbit/s and 20 ms each; bytes that cannot
be compressed, from the first one written to the answer of the reading end.

    paths/one        a single path, the reference
    paths/two        both
    paths/cut        both; the second one is cut after `DISTURBED_S` and stays so
    paths/crawl      both; the second one falls to 1 % of its rate then
    paths/flap       both; the second one is cut and healed every three seconds from then on
"""

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench.frame import Options, Row
from dwcp_migrate.lab.wan import DEVICE, MTU_BYTES, TRANSMIT_QUEUE_PACKETS, Wan, WanLink, relay_program
from dwcp_migrate.units import MIB
from tests.agent.hosts import Host, make_authority
from tests.agent.streams import carry_blocks
from tests.hypervisor.namespace import Namespace

LINK: Final = WanLink(rate_bytes_per_s=12.5e6, delay_s=0.010, loss=0.0)
CRAWL: Final = WanLink(rate_bytes_per_s=LINK.rate_bytes_per_s / 100, delay_s=LINK.delay_s, loss=0.0)
NETWORKS: Final = ("10.77.0", "10.78.0")
STREAM_BYTES: Final = 256 * MIB
RUNS: Final = 3
DISTURBED_S: Final = 3.0
FLAP_S: Final = 3.0
ANSWER_S_MAX: Final = 300.0
METHOD: Final = (
    "two agents, two relays of 100 Mbit/s and 20 ms, bytes without any redundancy, from the first one to the answer"
)


@dataclass(frozen=True)
class World:
    """Two hosts and the two ways between them."""

    source: Host
    destination: Host
    ways: tuple[Wan, Wan]


def rows(options: Options) -> list[Row]:
    """Measure all cases, or those whose names begin with `only`.

    Raises:
        LabError: no compiler, no TUN devices.
    """
    size, runs = (STREAM_BYTES // 8, 1) if options.quick else (STREAM_BYTES, RUNS)
    cases: dict[str, tuple[int, Callable[[World, threading.Event], None]]] = {
        "one": (1, _nothing),
        "two": (2, _nothing),
        "cut": (2, _cut),
        "crawl": (2, _crawl),
        "flap": (2, _flap),
    }
    wanted = {case: each for case, each in cases.items() if case == "one" or f"paths/{case}".startswith(options.only)}
    seconds: dict[str, list[float]] = {case: [] for case in wanted}
    for _ in range(runs):
        for case, (paths, disturb) in wanted.items():
            with _world(paths) as world:
                seconds[case].append(_carry(world, size // MIB, disturb))
    return [row for case, spent in seconds.items() for row in _rows(case, spent, seconds["one"], size)]


def _rows(case: str, spent: list[float], alone: list[float], size: int) -> Iterator[Row]:
    over_one = median(one / this for one, this in zip(alone, spent, strict=True))
    links = 2 if case == "two" else 1
    for metric, value, unit in (
        ("time", median(spent), "s"),
        ("over_one", over_one, "1"),
        ("utilisation", 100 * size / median(spent) / LINK.rate_bytes_per_s / links, "percent"),
    ):
        yield Row(case=f"paths/{case}", metric=metric, value=round(value, 3), unit=unit, n=len(spent), method=METHOD)


def _nothing(_world: World, _over: threading.Event) -> None:
    pass


def _cut(world: World, over: threading.Event) -> None:
    if not over.wait(DISTURBED_S):
        world.ways[1].cut()


def _crawl(world: World, over: threading.Event) -> None:
    if not over.wait(DISTURBED_S):
        world.ways[1].set(CRAWL)


def _flap(world: World, over: threading.Event) -> None:
    if over.wait(DISTURBED_S):
        return
    while True:
        for change in (world.ways[1].cut, world.ways[1].heal):
            change()
            if over.wait(FLAP_S):
                return


def _carry(world: World, blocks: int, disturb: Callable[[World, threading.Event], None]) -> float:
    """Bring so many blocks across; returns the seconds."""
    over = threading.Event()
    disturbing = threading.Thread(target=disturb, args=(world, over))
    disturbing.start()
    began = time.monotonic()
    try:
        address = f"{NETWORKS[0]}.2"
        carry_blocks(world.source, world.destination, blocks, address=address, timeout_s=ANSWER_S_MAX)
        seconds = time.monotonic() - began
        for host in (world.source, world.destination):
            host.wait(lambda status: not status.migrations)
        return seconds
    finally:
        over.set()
        disturbing.join()


@contextmanager
def _world(paths: int) -> Iterator[World]:
    """Two hosts with agents that know so many of the two ways."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        authority = make_authority(directory / "tls")
        ends = [Namespace(), Namespace()]
        for end in ends:
            stack.callback(end.close)
        ways = [stack.enter_context(_way(directory, ends, number)) for number in range(2)]
        hosts = [
            Host(end, directory / side, authority, f"{side}.lab", f"{NETWORKS[0]}.{number}")
            for number, (end, side) in enumerate(zip(ends, ("source", "destination"), strict=True), 1)
        ]
        for host, other, number in ((hosts[0], hosts[1], 2), (hosts[1], hosts[0], 1)):
            host.peers = [(other.name, [f"{NETWORKS[0]}.{number}"])]
            host.peer_lines = [f"link_addresses = {[f'{network}.{number}' for network in NETWORKS[:paths]]!r}"]
            stack.callback(host.close)
            host.spawn()
        for host in hosts:
            host.ready()
        yield World(hosts[0], hosts[1], (ways[0], ways[1]))


@contextmanager
def _way(directory: Path, ends: list[Namespace], number: int) -> Iterator[Wan]:
    """Join two namespaces by a relay; its devices are named after the way, since each relay calls its own the same."""
    path = directory / f"way{number}.sock"
    names = ("a", "b")
    arguments = [
        f"{name}={end.path}={NETWORKS[number]}.{last}"
        for last, (name, end) in enumerate(zip(names, ends, strict=True), 1)
    ]
    with subprocess.Popen(
        [str(relay_program()), str(path), "1", *arguments], stdout=subprocess.PIPE, text=True
    ) as relay:
        try:
            assert relay.stdout is not None
            if relay.stdout.readline().strip() != "ready":
                raise AssertionError("the relay did not start")
            for last, end in enumerate(ends, 1):
                device = f"way{number}"
                end.run("ip", "link", "set", DEVICE, "name", device)
                end.run("ip", "address", "add", f"{NETWORKS[number]}.{last}/32", "dev", device)
                end.run(
                    *("ip", "link", "set", device, "mtu", str(MTU_BYTES)),
                    *("txqueuelen", str(TRANSMIT_QUEUE_PACKETS), "up"),
                )
                source = f"{NETWORKS[number]}.{last}"
                end.run("ip", "route", "add", f"{NETWORKS[number]}.0/24", "dev", device, "src", source)
            wan = Wan(path, names)
            wan.set(LINK)
            yield wan
        finally:
            relay.terminate()
