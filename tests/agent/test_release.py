"""Agents of release 0.1.0 beside those of now: migrations between them, one fleet's record, upgrades and downgrades."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.api.cluster import GroupStatus, PbftView
from dwcp_migrate.consensus.io.key_file import make_identity
from tests.agent.hosts import Host
from tests.agent.release import ReleaseHosts, cluster_of, unpack_release
from tests.vectors.load import read

VOTERS = ["a.lab", "b.lab", "c.lab"]
MEMBERS = "abcd"
CLUSTER = "5d" * 16
SETTLED_S = 90.0
HEARTBEATS_S = 60.0
"""In which each host of a fleet has said at least once that it lives (every ten seconds), also on a slow machine."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_release(tmp_path_factory.mktemp("release-0.1.0"))


@pytest.fixture(scope="module")
def stream() -> bytes:
    """What a QEMU sent: pages that are encoded on the one side and rebuilt on the other."""
    return read("qemu-10.0-precopy", "main")


@pytest.fixture
def hosts(tmp_path: Path, release: Path) -> Iterator[ReleaseHosts]:
    found = ReleaseHosts(tmp_path, release, "abc")
    yield found
    found.close()


@pytest.mark.parametrize("old", ["a", "b"])
def test_agents_of_both_releases_accelerate_each_others_migrations(
    hosts: ReleaseHosts, stream: bytes, old: str
) -> None:
    for name in "ab":
        hosts.spawn(name, old=name == old)
    for name in "ab":
        hosts[name].ready()
    for source, destination in ("ab", "ba"):
        record = hosts.migrate(source, destination, stream)
        assert record.passthrough_reason == "", record
        assert record.counters.raw_bytes == len(stream)
        assert sum(record.counters.pages.values()) > 1000  # QEMU's pages were recognised, sent and rebuilt
        assert hosts[destination].ended()[0].id == record.id


def lives_in_one_record(host: Host, names: list[str]) -> None:
    """Wait until a host follows the fleet's leader and knows all hosts."""
    host.wait(lambda status: bool(status.coordination.leader))
    host.wait(lambda _: sorted(found.name for found in cluster_of(host).hosts) == names)
    assert cluster_of(host).engine.state in {"leader", "follower"}


def hear_each_other(hosts: ReleaseHosts) -> None:
    """Wait until every host's sign of life of after now is in every host's record: nobody stopped at a command."""
    before = max(found.heard_at for found in cluster_of(hosts["a"]).hosts)
    for host in hosts:
        host.wait(lambda _, host=host: all(found.heard_at > before for found in cluster_of(host).hosts), HEARTBEATS_S)  # type: ignore[misc]
        assert cluster_of(host).engine.error == ""


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_fleet_is_upgraded_and_downgraded_host_by_host_while_migrations_run(
    hosts: ReleaseHosts, stream: bytes
) -> None:
    for host in hosts:
        host.tables["coordination"] = {"voters": VOTERS, "timeout_s": 5.0}
    for name in "abc":
        hosts.spawn(name, old=True)
    for host in hosts:
        host.ready()
    for host in hosts:
        lives_in_one_record(host, VOTERS)

    turns = [("c", False), ("b", False), ("c", True), ("c", False), ("a", False)]
    old, agreed = {"a": True, "b": True, "c": True}, list[str]()
    for name, is_old in turns:
        hosts.restart(name, old=is_old)
        old[name] = is_old
        for host in hosts:
            lives_in_one_record(host, VOTERS)
        hear_each_other(hosts)
        for source, destination in ("ab", "bc", "ca"):
            record = hosts.migrate(source, destination, stream)
            assert record.passthrough_reason == "", (old, source, destination, record)
            agreed += [event.detail for event in record.events if event.event == "agreed"]
        new = next((name for name, is_old in old.items() if not is_old), None)
        behind = [f"{name}.lab" for name, is_old in old.items() if is_old]
        if new is not None and behind:
            status, body = hosts[new].get("/v1/cluster/raise-version", "POST")
            assert (status, all(name in body.decode() for name in behind)) == (503, True), body
    assert agreed.count("fleet") > len(agreed) / 2, agreed  # the others while a leader was being replaced
    status, body = hosts["a"].get("/v1/cluster/raise-version", "POST")
    assert status == 200, body
    hear_each_other(hosts)


def group_of(host: Host) -> GroupStatus:
    """What an agent says of the PBFT group."""
    return msgspec.json.decode(host.get("/v1/pbft")[1], type=PbftView).group


@pytest.fixture
def members(tmp_path: Path, release: Path) -> Iterator[ReleaseHosts]:
    """Four hosts in four hands, all members of a group, each migration between them on its certificate."""
    found = ReleaseHosts(tmp_path, release, MEMBERS)
    keys = {name: make_identity(found[name].directory / "pbft.key").public.hex() for name in MEMBERS}
    for name in MEMBERS:
        host = found[name]
        host.tables["coordination"] = {"voters": ["nobody.lab"], "timeout_s": 0.2, "trust_domain": name}
        group = {"mode": "pbft", "cluster": CLUSTER, "key": host.directory / "pbft.key", "timeout_s": 5.0}
        host.tables["coordination.pbft"] = group
        for member in MEMBERS:
            table = {"name": f"{member}.lab", "key": keys[member], "operator": member == "a"}
            host.tables[f"[coordination.pbft.members]#{member}"] = table
        host.tables["link"] = {"connect_timeout_s": 5.0}
        host.peers.append(("nobody.lab", ["10.79.0.99"]))
    yield found
    found.close()


def certified(hosts: ReleaseHosts, source: str, destination: str, stream: bytes) -> bool:
    """Whether a migration ran on a certificate. Else it was refused, or went without one, and the record says why."""
    record, arrived = hosts.attempt(source, destination, stream)
    said = {event.event: event.detail for event in record.events}
    is_certified = said.get("agreed") == "certificate"
    assert is_certified <= (arrived == stream)
    assert is_certified or record.reason or record.passthrough_reason or said["agreement"], record
    return is_certified


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_members_of_two_releases_certify_while_three_of_four_are_of_one(members: ReleaseHosts) -> None:
    hosts, stream = members, b"stream" * 1000

    def become(name: str) -> None:
        hosts.restart(name, old=False)
        hosts[name].wait(lambda _: group_of(hosts[name]).role == "replica")

    def settles(source: str, destination: str) -> bool:
        """Try until members and peers have found each other again after a restart, for as long as that may take."""
        deadline = time.monotonic() + SETTLED_S
        while not certified(hosts, source, destination, stream):
            if time.monotonic() > deadline:
                return False
            time.sleep(1)  # whoever was silent is asked again after a while
        return True

    for name in MEMBERS:
        hosts.spawn(name, old=True)
    for host in hosts:
        host.ready()
    assert settles("a", "b")
    become("d")
    assert settles("a", "b")
    become("c")
    assert not any(certified(hosts, "c", "d", stream) for _ in range(2))  # two and two: neither has a quorum
    become("b")
    assert settles("b", "c")
    assert not certified(hosts, "a", "b", stream)
    become("a")
    assert settles("a", "b")
    newest = group_of(hosts["a"]).sequence
    hosts["b"].wait(lambda _: group_of(hosts["b"]).sequence >= newest)
