"""Hosts that find each other by the fleet's state: real agents and a real replica, one seed and no list."""

from dwcp_migrate.api.schema import AgentStatus
from tests.agent.hosts import DESTINATION_ADDRESS, Host, announce, echoing, exchange

Hosts = tuple[Host, Host]
UUID = "0123abcd-0000-1111-2222-333344445555"


def has_a_peer(status: AgentStatus) -> bool:
    return status.peers == 1 and status.intercept.armed and bool(status.intercept.rules)


def test_a_host_that_joins_is_found_without_an_edit_or_a_restart_and_migrated_to(hosts: Hosts) -> None:
    """The first host lists nobody; the other one lists it, as a seed, and publishes the address that it has there."""
    source, destination = hosts
    for host in hosts:
        host.tables["coordination"] = {"voters": [source.name], "discover": ["*.lab"]}
    source.peers = []
    source.spawn()
    source.notify.recv(4096)  # it is ready, and with nobody to redirect to never armed
    assert source.status().peers == 0
    destination.spawn()
    destination.ready()
    source.wait(has_a_peer, 60)
    announce(destination, "vm", UUID)
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    (record,) = source.ended()
    assert (record.peer, record.passthrough_reason) == (destination.name, "")
