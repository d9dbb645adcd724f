"""ASS, bulk: an object brought to several hosts at once, beside one TLS connection to each of them in turn.

Each host is a process of its own (`host`) on this machine's loopback, mutual TLS 1.3 between them. Both ways end
with the object in a file at each peer, its SHA-256 compared there, not synced to the disk. What a case is:

    sync/MB/NODES/cold   nobody but the origin has the object
    sync/MB/NODES/same   all have it, and ask the origin what is newest
    sync/MB/NODES/1%     all have the version before; a hundredth of it was replaced in one place

`NODES` counts the origin. Hosts of one machine share its cores: seven on two cores have two sevenths of a core each,
where those of a fleet have their own. So the cold case is measured once more with each host held to send 125 MB/s, a
link of 1 Gbit/s.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.frame import Row
from bench.suites.sync.host import HostProcess
from dwcp_migrate.pki import create_authority, issue

MEGABYTES: Final = (1, 10, 100)
NODES: Final = (3, 5, 7)
RUNS: Final = {1: 15, 10: 7, 100: 5}
MB: Final = 1_000_000
GBIT_BYTES_PER_S: Final = 125e6
CHANGED: Final = 0.01
SEED: Final = 1


def case_names(*, quick: bool) -> list[str]:
    """The names of the cases; a quick run has one size and three hosts."""
    sizes, nodes = (MEGABYTES[:1], NODES[:1]) if quick else (MEGABYTES, NODES)
    return [f"sync/{size}/{count}/{kind}" for size in sizes for count in nodes for kind in ("cold", "same", "1%")]


def measure(case: str, *, quick: bool) -> Iterable[Row]:
    """Measure a case.

    Args:
        case: one of `case_names`.
        quick: one run only.
    """
    _, size, count, kind = case.split("/")
    runs = 1 if quick else RUNS[int(size)]
    with _fleet(int(count)) as fleet:
        found = {"cold": _cold, "same": _same, "1%": _changed}[kind]
        yield from found(case, fleet, int(size) * MB, runs)


class _Fleet:
    """The hosts of a case; the first is the origin."""

    def __init__(self, hosts: list[HostProcess]) -> None:
        self.origin, self.peers = hosts[0], hosts[1:]

    def at_once(self, manifest: str, target: str, *, asks: bool = False, rate: float = 0.0) -> dict[str, float]:
        """Bring an object to all peers at once."""
        self._prepare(rate)
        began = time.monotonic()
        for peer in self.peers:
            others = [one.facts(has_all=False) for one in self.peers if one is not peer]
            sources = [self.origin.facts(has_all=True), *others]
            peer.tell("fetch", manifest=manifest, target=target, peers=sources, asks=asks)
        answers = [peer.answer() for peer in self.peers]
        return {
            "ms": (max(answer["at"] for answer in answers) - began) * 1000,
            "bytes": max(answer["received"] for answer in answers),
            "cpu_s": sum(answer["cpu_s"] for answer in answers) + self.origin.ask("spent")["cpu_s"],
            "origin_bytes": self.origin.ask("sent")["bytes"],
        }

    def in_turn(self, manifest: str, rate: float = 0.0) -> dict[str, float]:
        """Send it to one peer after the other."""
        self._prepare(rate)
        began = time.monotonic()
        for peer in self.peers:
            peer.tell("receive", manifest=manifest)
            self.origin.tell("send", peers=[peer.facts(has_all=False)])
            answer = peer.answer()
            self.origin.answer()
        cpu_s = sum(one.ask("spent")["cpu_s"] for one in (self.origin, *self.peers))
        return {"ms": (answer["at"] - began) * 1000, "cpu_s": cpu_s}

    def _prepare(self, rate: float) -> None:
        """Set the rate, count CPU anew, remove what earlier runs left: its way to the disk would cost the next one."""
        for one in (self.origin, *self.peers):
            one.ask("pace", rate=rate)
            one.ask("clean")
            one.ask("spent")


@contextmanager
def _fleet(count: int) -> Iterator[_Fleet]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        create_authority(directory)
        names = [f"host{number}" for number in range(count)]
        for one in names:
            issue(directory, one)
        hosts = [stack.enter_context(HostProcess(directory, one)) for one in names]
        yield _Fleet(hosts)


def _content(size: int) -> bytes:
    return random.Random(SEED).randbytes(size)  # noqa: S311 - the same bytes in each run


def _cold(case: str, fleet: _Fleet, size: int, runs: int) -> Iterable[Row]:
    described = [fleet.origin.publish(_content(size))]
    manifest = described[0]["manifest"]
    fleet.at_once(manifest, "warm-up")
    fleet.in_turn(manifest)
    ours, plain = [], []
    for number in range(runs):
        ours.append(fleet.at_once(manifest, f"cold-{number}"))
        plain.append(fleet.in_turn(manifest))
    peers = len(fleet.peers)
    how = f"until the last of {peers} peers has it; nobody but the origin has any of it before"
    words = f"one TLS connection to each of {peers} peers in turn, which writes and compares the bytes as they come"
    yield _row(case, "time_ms", ours, "ms", "ms", how)
    yield _row(case, "in_turn_ms", plain, "ms", "ms", words)
    ratio = _median(ours, "ms") / _median(plain, "ms")
    yield Row(
        case=case, metric="time_over_in_turn", value=ratio, unit="1", n=runs, method="the one median by the other"
    )
    share = median(one["origin_bytes"] for one in ours) / size
    yield Row(
        case=case, metric="origin_share", value=share, unit="1", n=runs, method="sent by the origin, by the object"
    )
    cores = len(os.sched_getaffinity(0))
    for metric, found, words in (
        ("cores_busy", ours, "CPU of all hosts by the time that it took, at once"),
        ("in_turn_cores_busy", plain, "the same, in turn"),
    ):
        busy = median(one["cpu_s"] / (one["ms"] / 1000) for one in found)
        yield Row(case=case, metric=metric, value=busy, unit=f"of {cores} cores", n=runs, method=words)
    per = _median(ours, "cpu_s") / _median(plain, "cpu_s")
    yield Row(
        case=case, metric="cpu_over_in_turn", value=per, unit="1", n=runs, method="CPU of all hosts, by that in turn"
    )
    yield Row(
        case=case,
        metric="describe_ms",
        value=described[0]["ms"],
        unit="ms",
        n=1,
        method="the origin cuts the object and names its chunks, before",
    )
    yield from _cold_paced(case, fleet, manifest, min(runs, 3))


def _cold_paced(case: str, fleet: _Fleet, manifest: str, runs: int) -> Iterable[Row]:
    ours = [fleet.at_once(manifest, f"paced-{number}", rate=GBIT_BYTES_PER_S) for number in range(runs)]
    plain = [fleet.in_turn(manifest, rate=GBIT_BYTES_PER_S) for _ in range(runs)]
    how = "as above, each host held to send 125 MB/s"
    yield _row(case, "gbit_time_ms", ours, "ms", "ms", how)
    ratio = _median(ours, "ms") / _median(plain, "ms")
    yield Row(case=case, metric="gbit_time_over_in_turn", value=ratio, unit="1", n=runs, method=how)


def _same(case: str, fleet: _Fleet, size: int, runs: int) -> Iterable[Row]:
    manifest = fleet.origin.publish(_content(size))["manifest"]
    fleet.at_once(manifest, "object")
    found = [fleet.at_once(manifest, "object", asks=True) for _ in range(runs)]
    yield from _shares(case, found, size, "all peers ask the origin for the newest manifest and have that version")


def _changed(case: str, fleet: _Fleet, size: int, runs: int) -> Iterable[Row]:
    data = _content(size)
    manifest = fleet.origin.publish(data)
    fleet.at_once(manifest["manifest"], "object")
    found = []
    for number in range(runs):
        draw = random.Random(SEED + 1 + number)  # noqa: S311 - the same places in each run
        at, length = draw.randrange(size - int(size * CHANGED)), int(size * CHANGED)
        data = data[:at] + draw.randbytes(length) + data[at + length :]
        manifest = fleet.origin.publish(data, mean_bytes=manifest["mean_bytes"])
        found.append(fleet.at_once(manifest["manifest"], "object", asks=True))
    yield from _shares(
        case, found, size, "a hundredth was replaced in one place, drawn anew in each run; asked as for same"
    )


def _shares(case: str, found: list[dict[str, float]], size: int, how: str) -> Iterable[Row]:
    yield _row(case, "time_ms", found, "ms", "ms", f"{how}; until the last peer has it")
    share = max(one["bytes"] for one in found) / size
    words = f"{how}; bytes that a peer received, TLS's own counted, by the object's; the most of all peers and runs"
    yield Row(case=case, metric="bytes_share", value=share, unit="1", n=len(found), method=words)


def _row(case: str, metric: str, found: list[dict[str, float]], key: str, unit: str, how: str) -> Row:
    return Row(case=case, metric=metric, value=_median(found, key), unit=unit, n=len(found), method=how)


def _median(found: list[dict[str, Any]], key: str) -> float:
    return float(median(one[key] for one in found))
