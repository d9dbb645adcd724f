"""One host's clock jumps 70 years ahead and back while its agent runs: the fleet's time and its migrations go on."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.api.cluster import Locks
from dwcp_migrate.lab.clock import YEAR_S, WrongClock
from dwcp_migrate.state.fleet.fleet_clock import SKEW_S
from tests.agent.hosts import Host
from tests.agent.release import ReleaseHosts, cluster_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

NAMES = ["a.lab", "b.lab", "c.lab"]
YEARS_70_S = 70 * YEAR_S
HEARTBEATS_S = 60.0
"""In which every host has said that it lives, every ten seconds, also on a slow machine."""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[ReleaseHosts]:
    found = ReleaseHosts(tmp_path, tmp_path, "abc")
    for host in found:
        host.tables["coordination"] = {"voters": NAMES, "timeout_s": 5.0}
    yield found
    found.close()


def locks(host: Host) -> Locks:
    return msgspec.json.decode(host.get("/v1/locks")[1], type=Locks)


def ahead_s(host: Host) -> float:
    """How far the fleet's time, as a host knows it, is ahead of this machine's clock."""
    return locks(host).now - time.time()


def test_a_clock_70_years_ahead_freezes_nothing_also_where_its_host_leads(hosts: ReleaseHosts, tmp_path: Path) -> None:
    clock = WrongClock(tmp_path / "clock")
    for name in "ab":
        hosts.spawn(name, old=False)
    hosts.spawn("c", old=False, **clock.environment)
    wrong = hosts["c"]
    for host in hosts:
        host.ready()
    for host in hosts:
        host.wait(lambda _, host=host: len(cluster_of(host).hosts) == len(NAMES))  # type: ignore[misc]
    while (leader := hosts["a"].status().coordination.leader) != "c.lab":
        if leader:
            hosts[leader[0]].get("/v1/cluster/transfer-leader?name=c.lab", "POST")

    clock.set(YEARS_70_S)
    told = wrong.status().now
    assert told - time.time() > YEARS_70_S - 60
    before = max(found.heard_at for found in cluster_of(hosts["a"]).hosts)
    for host in (hosts["a"], hosts["b"]):
        host.wait(lambda _, host=host: all(found.heard_at > before for found in cluster_of(host).hosts), HEARTBEATS_S)  # type: ignore[misc]
        assert ahead_s(host) <= SKEW_S + 1
        host.wait(lambda status: bool(status.coordination.leader))
    assert hosts["a"].get("/v1/locks/acquire?name=one&lifetime_s=2", "POST")[0] == 200
    hosts["b"].wait(lambda _: hosts["b"].get("/v1/locks/acquire?name=one&lifetime_s=2", "POST")[0] == 200)
    record = hosts.migrate("a", "b", b"stream" * 100_000)
    assert record.passthrough_reason == "", record
    record = hosts.migrate("a", "c", b"stream" * 100_000)  # it arrives, whatever its destination takes certificates for
    assert record.result == "completed"

    clock.set(0)
    for host in hosts:
        host.wait(lambda status: bool(status.coordination.leader) and status.coordination.error == "")
        host.wait(lambda _, host=host: abs(ahead_s(host)) < HEARTBEATS_S)  # type: ignore[misc]
    for source, destination in ("ac", "cb"):
        record = hosts.migrate(source, destination, b"stream" * 100_000)
        assert record.passthrough_reason == "", record
    assert hosts["c"].get("/v1/locks/acquire?name=two&lifetime_s=2", "POST")[0] == 200
