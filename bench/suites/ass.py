"""ASS: commits, elections and broadcast of the Raft engine, etcd's commits beside; large objects to several hosts.

Replicas are processes of their own on this machine's loopback, TLS both ways between them. A commit is timed from the
leader's asyncio side to the outcome back there: queue, entry, TLS, the followers' fsync, apply.

    python -m bench ass                  everything but `steady`
    python -m bench ass --only raft/3    one case, or all that begin so
    python -m bench ass --only sync      large objects to several hosts (`sync`)
    python -m bench ass --only steady    ten minutes of full load, in which nobody may call an election
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench.frame import Options, Row
from bench.suites.replicas import etcd
from bench.suites.replicas.cluster import Cluster
from bench.suites.sync import cases as sync
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.state.raft.disk import Disk
from dwcp_migrate.state.raft.log_file import LogFile
from dwcp_migrate.units import KIB

NODES: Final = (3, 5, 7)
ELECTION_NODES: Final = (3, 5, 7, 11)
SIZES: Final = (1 * KIB, 64 * KIB)
WINDOW: Final = 64
COMMITS: Final = {1 * KIB: 1000, 64 * KIB: 100}
ELECTIONS: Final = 9
BROADCASTS: Final = 300
SYNCS: Final = 400
STEADY_S: Final = 600.0
STEADY_NODES: Final = 3
STEADY_COMMITS: Final = 20
QUICK: Final = 20
"""A quick run does a twentieth."""


def rows(options: Options) -> list[Row]:
    """Measure all cases but `steady`, which takes ten minutes, or those whose names begin with `options.only`.

    Raises:
        NotFoundError: none does.
    """
    cases = _cases(quick=options.quick)
    chosen = [name for name in cases if name.startswith(options.only)] if options.only else [*cases][:-1]
    if not chosen:
        raise NotFoundError(f"no case {options.only}", hint=f"one of {', '.join(cases)}")
    return [row for name in chosen for row in cases[name]()]


def _cases(*, quick: bool) -> dict[str, Callable[[], Iterable[Row]]]:
    """The cases by name, `steady` last."""
    share = QUICK if quick else 1
    found: dict[str, Callable[[], Iterable[Row]]] = {}
    sizes = {size: max(20, total // share) for size, total in COMMITS.items()}
    for count in NODES[:1] if quick else NODES:
        found[f"etcd/{count}"] = partial(etcd.commits, count, sizes, WINDOW)
        found[f"raft/{count}"] = partial(_commits, count, share, durable=True)
        found[f"raft/{count}/fsync-off"] = partial(_commits, count, share, durable=False)
        found[f"broadcast/{count}"] = partial(_broadcast, count, share)
    for count in ELECTION_NODES[:1] if quick else ELECTION_NODES:
        found[f"election/{count}"] = partial(_elections, count, max(3, ELECTIONS // share))
    found["fdatasync"] = partial(_bare_syncs, SYNCS // share)
    for name in sync.case_names(quick=quick):
        found[name] = partial(sync.measure, name, quick=quick)
    found[f"steady/{STEADY_NODES}"] = partial(_steady, STEADY_S / (share * share))
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


def _bare_syncs(total: int) -> Iterator[Row]:
    """Time of this disk for the writes of a commit alone."""
    with tempfile.TemporaryDirectory() as directory:
        journal = LogFile(Path(directory), Disk())
        took_ms: list[float] = []
        for index in range(1, total + 1):
            journal.append((os.urandom(SIZES[0]), index, 1))
            began = time.perf_counter()
            journal.sync()
            took_ms.append((time.perf_counter() - began) * 1000)
        journal.close()
    yield Row(
        case="fdatasync",
        metric="sync_p50_ms",
        value=median(took_ms),
        unit="ms",
        n=total,
        method="one entry of 1 KiB in the journal of one process, synced by itself",
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


def _steady(seconds: float) -> Iterator[Row]:
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
    yield Row(
        case=f"steady/{STEADY_NODES}",
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
