"""Real replicas, each a process, under what happens to hosts: killed, stopped, cut off, disk full, replaced."""

import queue
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from bench.suites.replicas.cluster import Cluster, Replica
from bench.suites.replicas.replica import Answer
from dwcp_migrate.errors import DwcpError
from tests.state.histories import Act, Read, anomalies

SEED = 20
ACT_S = 0.02
TIMEOUT_S = 2.0


class Clients:
    """A thread for each replica that takes leases and reads, and writes down what it was told."""

    def __init__(self, cluster: Cluster) -> None:
        self.acts: list[Act] = []
        self.reads: list[Read] = []
        self._cluster = cluster
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(replica,)) for replica in cluster.replicas.values()]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, replica: Replica) -> None:
        number = 0
        while not self._stop.wait(ACT_S):
            number += 1
            if not replica.is_running:
                continue
            began, lease = time.monotonic(), f"{replica.name}-{number}"
            do = "read" if number % 4 == 0 else "acquire"
            answer = self._asked(replica, do, lease)
            if answer is None or answer.error:
                if do == "acquire":
                    self.acts.append(Act(lease, began, float("inf"), 0))
            elif do == "read":
                self.reads.append(Read(began, answer.at, answer.values["index"]))
            else:
                assert answer.values["code"] == ""
                self.acts.append(Act(lease, began, answer.at, answer.values["token"]))

    def _asked(self, replica: Replica, do: str, name: str) -> Answer | None:
        try:
            return replica.ask(do, name=name, timeout_s=TIMEOUT_S).get(timeout=2 * TIMEOUT_S)
        except (queue.Empty, AssertionError, ValueError):
            return None  # it was killed meanwhile: nobody knows how it went

    @property
    def confirmed(self) -> int:
        return sum(1 for act in self.acts if act.token)


def states(cluster: Cluster) -> list[dict[str, int]]:
    """Leases by token, of every replica, once each has caught up."""
    return [
        {name: token for name, (token, _) in replica.call("read")["leases"].items()} for replica in cluster.running()
    ]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, 3) as cluster:
        cluster.settle()
        yield cluster


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that has no event; looks 20 times a second."""
    deadline, tick = time.monotonic() + 20, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        tick.wait(0.05)


def disturb(cluster: Cluster, rng: random.Random, patience: threading.Event) -> None:
    """Do one bad thing, let it last, and undo it."""
    victim = rng.choice(list(cluster.replicas.values()))
    act = rng.choice(("kill", "stop", "cut", "kill-leader", "stop-leader", "transfer", "compact"))
    if act.endswith("leader"):
        victim, _ = cluster.leader()
    if act.startswith("kill"):
        victim.kill()
        patience.wait(rng.uniform(0.2, 1.0))
        victim.start()
    elif act.startswith("stop"):
        victim.signal(signal.SIGSTOP)
        patience.wait(rng.uniform(0.5, 1.5))
        victim.signal(signal.SIGCONT)
    elif act == "cut":
        others = [name for name in cluster.replicas if name != victim.name]
        victim.call("cut", names=others)
        patience.wait(rng.uniform(0.5, 1.5))
        victim.call("cut")
    elif act == "compact":
        victim.call("compact")
    else:
        leader, _ = cluster.leader()
        leader.ask("transfer", timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
def test_nothing_that_was_confirmed_is_lost_or_seen_out_of_order(three: Cluster, seed: int) -> None:
    rng, patience = random.Random(seed), threading.Event()
    with Clients(three) as clients:
        for _ in range(6):
            disturb(three, rng, patience)
            patience.wait(0.3)
    assert clients.confirmed > 50
    assert len(clients.reads) > 10
    assert anomalies(clients.acts, clients.reads, states(three)) == []


def test_everything_survives_when_all_are_killed_at_once(three: Cluster) -> None:
    with Clients(three) as clients:
        threading.Event().wait(1.5)
        for replica in three.replicas.values():
            replica.kill()
    for replica in three.replicas.values():
        replica.start()
    assert clients.confirmed > 20
    assert anomalies(clients.acts, clients.reads, states(three)) == []


def test_a_minority_confirms_nothing_and_does_not_depose_the_leader_when_it_is_back(three: Cluster) -> None:
    leader, _ = three.leader()
    other = next(replica for replica in three.running() if replica is not leader)
    other.call("cut", names=[name for name in three.replicas if name != other.name])
    with pytest.raises(DwcpError, match="no majority"):
        other.call("acquire", name="x", timeout_s=1.0)
    assert leader.call("acquire", name="x")["code"] == ""
    term = leader.call("status")["term"]  # of now: on a starved machine the two may have voted meanwhile
    other.call("cut")
    assert other.call("read")["leases"]["x"][1] == leader.name
    assert leader.call("status")["term"] == term
    assert leader.call("status")["state"] == "leader"


def test_a_leader_that_is_cut_off_stops_to_lead_and_follows_the_next(three: Cluster) -> None:
    leader, _ = three.leader()
    cut_at = time.monotonic()
    leader.call("cut", names=[name for name in three.replicas if name != leader.name])
    successor, _ = three.leader(after=cut_at, among=[name for name in three.replicas if name != leader.name])
    successor.call("acquire", name="x")
    with pytest.raises(DwcpError, match="no majority"):
        leader.call("read", timeout_s=2.5)
    assert leader.call("status")["state"] != "leader"
    leader.call("cut")
    assert leader.call("read")["leases"]["x"][1] == successor.name


def test_leadership_moves_when_it_is_asked_to(three: Cluster) -> None:
    leader, _ = three.leader()
    other = next(name for name in three.replicas if name != leader.name)
    assert leader.call("transfer", name=other)["leader"] == other
    with pytest.raises(DwcpError, match="does not lead"):
        leader.call("transfer")
    assert leader.call("acquire", name="x")["code"] == ""


def test_members_come_catch_up_vote_and_go(tmp_path: Path) -> None:
    with Cluster(tmp_path, 3, observers=1) as cluster:
        cluster.settle()
        leader, _ = cluster.leader()
        new = cluster.replicas["n3.bench"]
        leader.call("acquire", name="before")
        assert new.call("read")["leases"]["before"]
        assert new.call("status")["state"] == "observer"
        leader.call("add", name=new.name)
        assert new.call("read")
        assert new.call("status")["state"] == "follower"
        followers = [replica for replica in cluster.running() if replica not in (leader, new)]
        followers[0].kill()
        new.call("acquire", name="three of four")
        followers[1].call("remove", name=followers[0].name)
        followers[1].kill()
        assert new.call("acquire", name="two of three")["code"] == ""
        followers[0].start()
        assert followers[0].call("read")["leases"]["two of three"]
        with pytest.raises(DwcpError, match=r"did not remove .*: it refused"):
            leader.call("remove", name=leader.name)


def test_who_is_far_behind_gets_a_snapshot(three: Cluster) -> None:
    leader, _ = three.leader()
    away = next(replica for replica in three.running() if replica is not leader)
    away.kill()
    leader.call("commit", bytes=1000, count=400, window=50)
    leader.call("acquire", name="kept")
    leader.call("compact")
    leader.call("acquire", name="after")
    until(lambda: leader.call("status")["log_bytes"] < 200_000)
    away.start()
    assert set(away.call("read")["leases"]) == {"kept", "after"}
    away.kill()
    away.start()
    assert set(away.call("read")["leases"]) == {"kept", "after"}


def test_a_full_disk_stops_its_replica_until_there_is_room(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    small = tmp_path / "n0.bench"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)], check=True)
    try:
        with cluster:
            cluster.settle()
            victim = cluster.replicas["n0.bench"]
            (small / "filler").write_bytes(bytes(440 * 1024))
            survivors = [replica for replica in cluster.running() if replica is not victim]
            for number in range(20):
                survivors[0].call("acquire", name=f"{number}" * 100)
                survivors[0].call("commit", bytes=8000, count=2)
            until(lambda: "No space left" in victim.call("status")["error"])
            (small / "filler").unlink()
            kept = survivors[0].call("read")["leases"]
            assert victim.call("read")["leases"] == kept
            assert victim.call("status")["error"] == ""
    finally:
        subprocess.run(["umount", str(small)], check=True)
