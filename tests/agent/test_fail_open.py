"""What must never cost a migration: real agents on two hosts, plain TCP in the place of QEMU, one fault a test."""

import pytest

from dwcp_migrate.api.migration import Migration
from tests.agent.hosts import DESTINATION_ADDRESS, Host, announce, echoing, exchange

Hosts = tuple[Host, Host]
UUID = "0123abcd-0000-1111-2222-333344445555"


def start(hosts: Hosts) -> None:
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()


def migrate(hosts: Hosts) -> Migration:
    """Carry an announced migration from the first host to the second, whole; returns the source's record."""
    source, destination = hosts
    announce(destination, "vm", UUID)
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    (record,) = source.ended()
    return record


def said(record: Migration) -> dict[str, str]:
    return {event.event: event.detail for event in record.events}


@pytest.mark.parametrize("whose", ["source", "destination"])
def test_a_host_that_calls_itself_by_a_short_name_migrates_accelerated_with_a_remark(hosts: Hosts, whose: str) -> None:
    source, destination = hosts
    host = source if whose == "source" else destination
    host.settings["name"] = whose
    start(hosts)
    record = migrate(hosts)
    assert (record.passthrough_reason, said(record)["agreed"]) == ("", "point-to-point")
    assert whose in said(record)["remark"]
    other = destination if whose == "source" else source
    assert other.facts().peers[0].calls_itself == whose


def test_names_in_other_case_are_the_same_names(hosts: Hosts) -> None:
    source, destination = hosts
    source.settings["name"] = "SOURCE.lab"
    source.peers = [("Destination.LAB", source.peers[0][1])]
    start(hosts)
    record = migrate(hosts)
    assert (record.passthrough_reason, said(record)["agreed"]) == ("", "point-to-point")
    assert "remark" not in said(record)
    assert destination.facts().peers[0].clock_ahead_s == pytest.approx(0.0, abs=1.0)


def test_a_host_without_a_name_takes_it_from_its_certificate(hosts: Hosts) -> None:
    source, _ = hosts
    del source.settings["name"]
    start(hosts)
    assert source.status().name == "source.lab"
    assert "remark" not in said(migrate(hosts))
