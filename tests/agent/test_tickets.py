"""Real agents whose migrations the fleet has to agree to, plain TCP in the place of QEMU."""

import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import pytest

from dwcp_migrate.api.cluster import Cluster, Locks, TicketList
from dwcp_migrate.cli.fleet.fleet_checks import judge_fleet
from dwcp_migrate.protocol.control import Permit
from tests.agent.hosts import DESTINATION_ADDRESS, PORT, Host, announce, echoing, exchange, is_reset

Hosts = tuple[Host, Host]
UUID = "0123abcd-0000-1111-2222-333344445555"
BOTH = ["source.lab", "destination.lab"]
FORGER: Final = Path(__file__).parents[1] / "e2e" / "forger.py"


def coordinate(hosts: Hosts, voters: list[str], *, require: bool) -> None:
    for host in hosts:
        host.tables["coordination"] = {"voters": voters, "require": require, "timeout_s": 3.0}
        host.tables["policy"] = {"require_announcement": True}
        host.peers.append(("stranger.lab", ["10.77.0.99"]))
        host.spawn()
    for host in hosts:
        host.ready()


def cluster(host: Host) -> Cluster:
    return msgspec.json.decode(host.get("/v1/cluster")[1], type=Cluster)


def tickets(host: Host) -> TicketList:
    return msgspec.json.decode(host.get("/v1/tickets")[1], type=TicketList)


def agreed(hosts: Hosts) -> None:
    """Wait until both hosts are known to the fleet."""
    for host in hosts:
        host.wait(lambda status: bool(status.coordination.leader))
        host.wait(lambda _, host=host: len(cluster(host).hosts) == 2)  # type: ignore[misc]


def notes(host: Host) -> dict[str, str]:
    (record,) = host.ended()
    return {event.event: event.detail for event in record.events}


def test_a_migration_runs_on_a_ticket_of_the_fleet(hosts: Hosts) -> None:
    source, destination = hosts
    coordinate(hosts, BOTH, require=True)
    agreed(hosts)
    announce(destination, "vm", UUID)
    with echoing(destination.listen()) as brought:
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert brought == [b"stream"]
    found = tickets(destination)
    assert found.is_fresh
    (ticket,) = found.tickets
    assert (ticket.uuid, ticket.source, ticket.destination, ticket.state) == (UUID, *BOTH, "running")
    said = notes(source)
    assert said["agreement"].startswith(f"ticket {ticket.token}")
    assert said["agreed"] == "fleet"
    locks = msgspec.json.decode(source.get("/v1/locks")[1], type=Locks)
    assert (locks.is_fresh, locks.leases) == (True, [])


def test_a_destination_that_drains_is_known_to_the_fleet_and_the_migration_passes_through(hosts: Hosts) -> None:
    source, destination = hosts
    coordinate(hosts, BOTH, require=False)
    agreed(hosts)
    announce(destination, "vm", UUID)
    destination.get("/v1/drain", "POST")
    source.wait(lambda _: any(host.state == "draining" for host in cluster(source).hosts))
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    (record,) = source.ended()
    assert record.passthrough_reason == "draining"
    assert any("takes no domains now" in event.detail for event in record.events)


def test_a_peer_cannot_claim_a_domain_that_another_host_runs(hosts: Hosts) -> None:
    source, destination = hosts
    coordinate(hosts, BOTH, require=False)
    agreed(hosts)
    announce(destination, "vm", UUID)
    with echoing(destination.listen()):
        exchange(source.connect(DESTINATION_ADDRESS), b"stream")  # from now on the fleet knows whose it is
        source.ended()
        announce(destination, "vm", UUID)
        assert claimed(source, "stranger.lab") == "not-its-source"
        assert claimed(source, "source.lab") == "opened"


def claimed(source: Host, name: str) -> str:
    """What a destination answers to a host that says, with its own certificate, that it brings the domain."""
    tls = [source.tls / file for file in ("ca.pem", f"{name}.pem", f"{name}.key")]
    permit = Permit(uuid=UUID, source=name, destination="destination.lab", expires_at=time.time() + 60)
    address = [DESTINATION_ADDRESS, str(PORT)]
    return source.namespace.run(
        sys.executable, str(FORGER), *address, *map(str, tls), "destination.lab", msgspec.json.encode(permit).decode()
    ).strip()


@pytest.mark.parametrize("require", [False, True])
def test_without_a_quorum_it_goes_point_to_point_or_not_at_all(hosts: Hosts, require: bool) -> None:  # noqa: FBT001
    source, destination = hosts
    coordinate(hosts, ["stranger.lab"], require=require)
    announce(destination, "vm", UUID)
    assert cluster(source).engine.state == "observer"
    assert {check.id: check.verdict for check in judge_fleet(source.facts().fleet)}["fleet"] == "fail"
    with echoing(destination.listen()) as brought:
        if require:
            assert is_reset(source.connect(DESTINATION_ADDRESS))
            assert brought == []
            assert "coordination.require" in source.ended()[0].reason
            return
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    said = notes(source)
    assert said["agreement"].startswith("point-to-point: no majority")
    assert said["agreed"] == "point-to-point"


def test_a_replica_whose_log_is_damaged_stops_and_doctor_says_so(hosts: Hosts) -> None:
    source, _ = hosts
    source.start()
    source.wait(lambda status: status.coordination.leader == "source.lab")
    source.stop()
    (source.directory / "state" / "alone" / "log").write_bytes(b"")
    source.start()
    (check,) = [check for check in judge_fleet(source.facts().fleet) if check.id == "fleet"]
    assert (check.verdict, "log" in check.what) == ("fail", True), check


def test_a_host_by_itself_needs_no_configuration(hosts: Hosts) -> None:
    source, _ = hosts
    source.start()
    source.wait(lambda status: status.coordination.leader == "source.lab")
    assert {check.verdict for check in judge_fleet(source.facts().fleet)} == {"ok"}
    found = cluster(source)
    assert (found.is_shared, found.engine.state, [member.role for member in found.engine.members]) == (
        False,
        "leader",
        ["leader"],
    )
    status, body = source.get("/v1/cluster/remove?name=source.lab", "POST")
    assert (status, b"did not remove" in body) == (503, True)
