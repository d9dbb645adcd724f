"""ASS: commit latency, throughput, elections and broadcast of the Raft engine.

Replicas are processes of their own on this machine's loopback, TLS both ways between them. A commit is timed from the
leader's asyncio side to the outcome back there: queue, entry, TLS, the followers' fsync, apply.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from dwcp_migrate.bench.cluster import Cluster
from dwcp_migrate.bench.frame import Options, Row
from dwcp_migrate.units import KIB

NODES: Final = (3, 5, 7)
ELECTION_NODES: Final = (3, 5, 7, 11)
SIZES: Final = (1 * KIB, 64 * KIB)
WINDOW: Final = 64
COMMITS: Final = {1 * KIB: 2000, 64 * KIB: 200}
ELECTIONS: Final = 9
BROADCASTS: Final = 300
STEADY_S: Final = 600.0
STEADY_NODES: Final = 3
STEADY_COMMITS: Final = 20
QUICK: Final = 20
"""A quick run does a twentieth."""


def rows(options: Options) -> list[Row]:
    """Measure everything."""
    nodes, elections = (NODES[:1], ELECTION_NODES[:1]) if options.quick else (NODES, ELECTION_NODES)
    share = QUICK if options.quick else 1
    found: list[Row] = []
    for count in nodes:
        for durable in (True, False):
            found += _commits(count, share, durable=durable)
        found += _broadcast(count, share)
    for count in elections:
        found += _elections(count, max(3, ELECTIONS // share))
    found.append(_steady(STEADY_S / (share * share)))
    return found


def _commits(count: int, share: int, *, durable: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), count, durable=durable) as cluster:
        cluster.settle()
        leader, _ = cluster.leader()
        for size in SIZES:
            total = COMMITS[size] // share
            case = f"raft/{count}/{size}" + ("" if durable else "/fsync-off")
            leader.call("commit", bytes=size, count=max(20, total // 10))
            one = leader.call("commit", bytes=size, count=total)
            many = leader.call("commit", bytes=size, count=total, window=WINDOW)
            how = f"sequential at the leader, fsync {'on' if durable else 'off'}"
            yield Row(case=case, metric="commit_p50_ms", value=one["p50_ms"], unit="ms", n=total, method=how)
            yield Row(case=case, metric="commit_p99_ms", value=one["p99_ms"], unit="ms", n=total, method=how)
            yield Row(
                case=case,
                metric="commits_per_s",
                value=many["per_s"],
                unit="1/s",
                n=total,
                method=f"{WINDOW} in flight at the leader, fsync {'on' if durable else 'off'}",
            )


def _broadcast(count: int, share: int) -> Iterator[Row]:
    total = BROADCASTS // share
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), count) as cluster:
        cluster.settle()
        leader, _ = cluster.leader()
        asked = leader.call("announce", count=total)["asked"]
        cluster.settle()
        applied = [replica.call("applied")["applied"] for replica in cluster.running()]
    took_ms = [(max(times[index] for times in applied) - began) * 1000 for index, began in asked.items()]
    yield Row(
        case=f"broadcast/{count}",
        metric="all_applied_p50_ms",
        value=median(took_ms),
        unit="ms",
        n=total,
        method="from asking at the leader until the last replica has applied it, fsync on",
    )


def _elections(count: int, repeats: int) -> Iterator[Row]:
    for metric, number, method in (
        ("sigkill_p50_ms", signal.SIGKILL, "leader's process killed, until a survivor leads"),
        (
            "vanish_p50_ms",
            signal.SIGSTOP,
            "leader's process stopped, its connections stay open, until a survivor leads",
        ),
    ):
        took_ms = [took * 1000 for took in _lost_leaders(count, repeats, number)]
        yield Row(
            case=f"election/{count}", metric=metric, value=median(took_ms), unit="ms", n=len(took_ms), method=method
        )


def _steady(seconds: float) -> Row:
    """Count terms that begin while every core computes and nothing is wrong."""
    burner = [sys.executable, "-c", "while True: pass"]
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), STEADY_NODES) as cluster:
        cluster.settle()
        leader, _ = cluster.leader()
        before = leader.call("status")["term"]
        burners = [subprocess.Popen(burner) for _ in os.sched_getaffinity(0)]
        try:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                leader.call("commit", bytes=SIZES[0], count=STEADY_COMMITS)
        finally:
            for process in burners:
                process.kill()
                process.wait()
        after = leader.call("status")["term"]
    return Row(
        case=f"election/{STEADY_NODES}",
        metric="spurious_elections",
        value=after - before,
        unit="",
        n=1,
        method=f"new terms in {seconds:g} s of commits, one busy process a core beside them",
    )


def _lost_leaders(count: int, repeats: int, number: int) -> Iterator[float]:
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), count) as cluster:
        cluster.settle()
        for _ in range(repeats):
            leader, _ = cluster.leader()
            leader.call("read")
            lost_at = time.monotonic()
            leader.signal(number)
            if number == signal.SIGKILL:
                leader.kill()
            _, led_at = cluster.leader(after=lost_at)
            yield led_at - lost_at
            leader.kill()
            leader.start()
            cluster.settle()
