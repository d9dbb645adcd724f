"""A group whose members change while it decides: who votes, who follows, who judges by whose keys."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dwcp_migrate.agent.pbft import membership_sync
from dwcp_migrate.agent.pbft.membership_store import FILE
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate
from dwcp_migrate.consensus.pbft.membership_chain import GRACE_MS
from dwcp_migrate.errors import ConfigError, EpochError, NoQuorumError
from tests.agent.group_hosts import GroupHost, GroupHosts

FOUR = ["a", "b", "c", "d"]


@pytest.fixture
async def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GroupHosts]:
    """Members a, b, c, d; e has no part; f asks and does not vote."""
    monkeypatch.setattr(membership_sync, "EAGER_S", 0.05)
    monkeypatch.setattr(membership_sync, "FOLLOW_S", 0.5)
    found = GroupHosts(tmp_path, FOUR, "e", clients=["f"])
    yield found
    await found.stop()


def believed(host: GroupHost, certificate: DecisionCertificate, *, after_ms: int = 0) -> int:
    """Judge a certificate as a destination does; returns the epoch by whose keys."""
    lineage = host.group.lineage
    assert lineage is not None
    group = lineage.judge(certificate, round(wall_clock() * 1000) + after_ms)
    certificate.verify(group.keys, group.epoch, group.cluster)
    return group.epoch


async def test_a_member_is_added_and_another_removed_while_all_go_on_deciding(hosts: GroupHosts) -> None:
    await hosts.start()
    before = await hosts.certificate("f")
    assert believed(hosts["f"], before) == 0
    assert hosts["e"].group.status().role == "none"

    assert await hosts.change(add=(hosts.named("e"),)) == 1
    await hosts["e"].until(1, "replica")
    await hosts["f"].until(1, "client")
    assert believed(hosts["f"], before) == 0
    with pytest.raises(EpochError, match="certificate of epoch 0, the group is in 1"):
        believed(hosts["f"], before, after_ms=GRACE_MS + 10_000)
    await hosts["b"].stop()  # four of five decide, one of them the new one
    during = await hosts.certificate("f")
    assert during.signatures.keys() == {"a", "c", "d", "e"}
    await hosts["b"].start()

    assert await hosts.change(remove=("d",)) == 2
    await hosts["d"].until(2, "none")
    assert "d has no part in the group since epoch 2: it was removed" in hosts["d"].group.error
    with pytest.raises(NoQuorumError, match="it was removed"):
        await hosts["d"].group.decide(b"")
    after = await hosts.certificate("f")
    assert "d" not in after.signatures
    assert believed(hosts["f"], after) == 2
    assert believed(hosts["d"], after) == 2
    assert believed(hosts["f"], during) == 1


async def test_a_dead_member_is_replaced_and_one_that_comes_back_learns_that_it_was(hosts: GroupHosts) -> None:
    await hosts.start("a", "b", "c", "e", "f")
    assert await hosts.change(add=(hosts.named("e"),), remove=("d",)) == 1
    await hosts["e"].until(1, "replica")
    await hosts["b"].stop()
    assert (await hosts.certificate("f")).signatures.keys() == {"a", "c", "e"}
    await hosts["d"].start()
    await hosts["d"].until(1, "none")
    assert "it was removed" in hosts["d"].group.error


async def test_a_member_that_lost_its_disk_comes_back_under_another_key(hosts: GroupHosts) -> None:
    await hosts.start("a", "b", "c", "f")
    hosts["d"].renew_key()
    await hosts["d"].start()
    assert "is not the key that coordination.pbft has for d" in hosts["d"].group.error
    assert await hosts.change(add=(hosts.named("d"),)) == 1
    await hosts["d"].until(1, "replica")
    await hosts["c"].stop()
    assert (await hosts.certificate("f")).signatures.keys() == {"a", "b", "d"}


async def test_hosts_that_restart_go_on_in_the_epoch_that_they_verified(hosts: GroupHosts) -> None:
    await hosts.start()
    await hosts.change(add=(hosts.named("e"),))
    await hosts["e"].until(1, "replica")
    await hosts["f"].until(1, "client")
    await hosts.stop()
    for host in hosts:
        assert (hosts.directory / host.name / FILE).exists()
    await hosts["f"].start()  # alone: nobody can tell it
    status = hosts["f"].group.status()
    assert (status.epoch, status.epoch_configured, status.members) == (1, 0, [*FOUR, "e"])
    assert "epoch 1 counts" in status.note
    await hosts.start("a", "b", "c", "e")
    assert believed(hosts["f"], await hosts.certificate("f")) == 1
    assert hosts["e"].group.status().role == "replica"


async def test_a_destination_that_slept_through_a_change_asks_the_source_that_shows_its_certificate(
    hosts: GroupHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hosts.start("a", "b", "c", "d", "e")
    await hosts.change(add=(hosts.named("e"),))
    await hosts["e"].until(1, "replica")
    shown = await hosts.certificate("a")
    destination = hosts["f"]
    monkeypatch.setattr(membership_sync, "FOLLOW_S", 3600.0)
    monkeypatch.setattr(membership_sync.MembershipSync, "start", lambda _: None)  # as if no member answered
    await destination.start()
    with pytest.raises(EpochError, match="could not verify what follows"):
        believed(destination, shown)
    await destination.group.follow(hosts["a"].peer)
    assert believed(destination, shown) == 1


async def test_only_an_operator_proposes_and_another_may_be_named(hosts: GroupHosts) -> None:
    await hosts.start(*FOUR)
    hosts.operator = hosts["b"]
    with pytest.raises(ConfigError, match="b is no operator of the group; a is"):
        await hosts.change(operators=("b",))
    hosts.operator = hosts["a"]
    assert await hosts.change(operators=("b",)) == 1
    hosts.operator = hosts["b"]
    await hosts["b"].until(1, "replica")
    assert await hosts.change(clients=(hosts.named("a"),)) == 2
    await hosts["a"].until(2, "client")
    assert (await hosts.certificate("a")).signatures.keys() <= {"b", "c", "d"}


async def test_a_member_that_does_not_have_what_it_promised_takes_no_part(tmp_path: Path) -> None:
    hosts = GroupHosts(tmp_path, FOUR, epoch=3)
    await hosts.start("a")
    status = hosts["a"].group.status()
    await hosts.stop()
    assert (status.role, status.epoch) == ("none", 3)
    assert "epoch 3 names a, and what it promised there is not in" in status.error
