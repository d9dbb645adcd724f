"""Real agents that are the PBFT group: a migration between hosts in different hands runs on their certificate."""

from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.api.cluster import PbftView
from dwcp_migrate.consensus.io.key_file import make_identity
from tests.agent.hosts import DESTINATION_ADDRESS, Host, announce, echoing, exchange, is_reset
from tests.agent.test_tickets import BOTH, UUID, Hosts, agreed, notes, tickets

CLUSTER = "5a" * 16


def certified(hosts: Hosts, *, require: bool, strangers: int = 0) -> None:
    """Start both agents in trust domains of their own, in one group; `strangers` are members that nobody runs."""
    keys = {host.name: make_identity(host.directory / "pbft.key").public.hex() for host in hosts}
    for number in range(strangers):
        name = f"stranger{number}.lab"
        keys[name] = make_identity(hosts[0].directory / f"{name}.key").public.hex()
    for host in hosts:
        host.tables["coordination"] = {
            "voters": BOTH,
            "require": require,
            "timeout_s": 3.0,
            "trust_domain": f"of {host.name}",
        }
        host.tables["coordination.pbft"] = {"cluster": CLUSTER, "key": host.directory / "pbft.key", "timeout_s": 2.0}
        for number, (name, key) in enumerate(keys.items()):
            host.tables[f"[coordination.pbft.members]#{number}"] = {"name": name, "key": key}
        host.tables["policy"] = {"require_announcement": True}
        host.peers += [(f"stranger{number}.lab", [f"10.77.0.{90 + number}"]) for number in range(strangers)]
        host.spawn()
    for host in hosts:
        host.ready()
    agreed(hosts)


def pbft(host: Host) -> PbftView:
    return msgspec.json.decode(host.get("/v1/pbft")[1], type=PbftView)


def test_a_migration_across_trust_domains_runs_on_a_certificate(hosts: Hosts) -> None:
    source, destination = hosts
    certified(hosts, require=True)
    announce(destination, "vm", UUID)
    source.wait(lambda _: pbft(source).group.connected == sorted(BOTH))
    with echoing(destination.listen()) as brought:
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert brought == [b"stream"]
    (ticket,) = tickets(destination).tickets
    assert ticket.certificate
    said = notes(source)
    assert said["agreement"].endswith("differ")
    assert said["agreed"] == "fleet"
    shown = pbft(source)
    assert (shown.choices[0].engine, shown.group.role, shown.group.decisions_failed) == ("pbft", "replica", 0)
    assert shown.group.decision_ms_p50 > 0
    assert (Path(destination.directory) / "state" / "pbft" / "used").exists()


@pytest.mark.parametrize("require", [False, True])
def test_a_group_without_a_quorum_costs_what_the_configuration_says(hosts: Hosts, require: bool) -> None:  # noqa: FBT001
    source, destination = hosts
    certified(hosts, require=require, strangers=2)  # two of four are up, and three decide
    announce(destination, "vm", UUID)
    with echoing(destination.listen()) as brought:
        if require:
            assert is_reset(source.connect(DESTINATION_ADDRESS))
            assert brought == []
            assert "the group did not decide" in source.ended()[0].reason
        else:
            assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
            assert notes(source)["agreement"].startswith("point-to-point: PBFT: the group did not decide")
    (event,) = pbft(source).events
    assert (event.engine, event.usable) == ("pbft", False)


def test_a_wrong_key_leaves_an_agent_outside_of_the_group(hosts: Hosts) -> None:
    source, _ = hosts
    make_identity(source.directory / "pbft.key")
    source.tables["coordination.pbft"] = {"cluster": CLUSTER, "key": source.directory / "pbft.key"}
    source.tables["[coordination.pbft.members]#0"] = {"name": "source.lab", "key": "00" * 32}
    source.start()
    group = pbft(source).group
    assert group.role == "none"
    assert "is not the key that coordination.pbft has for source.lab" in group.error


def test_a_public_key_that_is_none_leaves_an_agent_outside_of_the_group(hosts: Hosts) -> None:
    source, _ = hosts
    public = make_identity(source.directory / "pbft.key").public.hex()
    source.tables["coordination.pbft"] = {"cluster": CLUSTER, "key": source.directory / "pbft.key"}
    source.tables["[coordination.pbft.members]#0"] = {"name": "source.lab", "key": public}
    source.tables["[coordination.pbft.members]#1"] = {"name": "destination.lab", "key": "00" * 32}
    source.start()
    group = pbft(source).group
    assert (group.role, group.error) == ("none", "not an Ed25519 public key")
