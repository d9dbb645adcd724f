"""Memory that migrations may occupy: real agents on two hosts, plain TCP in the place of QEMU."""

import pytest

from dwcp_migrate.protocol.session_memory import FLOOR_BYTES
from dwcp_migrate.units import MIB
from tests.agent.hosts import DESTINATION_ADDRESS, Host, announce, echoing, exchange

Hosts = tuple[Host, Host]
UUID = "0123abcd-0000-1111-2222-333344445555"


def migrate(hosts: Hosts) -> None:
    """Carry an announced migration from the first host to the second, whole."""
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()
    source, destination = hosts
    announce(destination, "vm", UUID)
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"


@pytest.mark.parametrize("whose", ["source", "destination"])
def test_a_migration_that_either_host_has_no_memory_for_runs_unaccelerated_and_says_why(
    hosts: Hosts, whose: str
) -> None:
    source, destination = hosts
    poor = source if whose == "source" else destination
    poor.tables["policy"] = {"require_announcement": False, "memory_bytes_max": FLOOR_BYTES - 1}
    migrate(hosts)
    (record,) = source.ended()
    assert record.passthrough_reason == "memory"
    said = next(event.detail for event in record.events if event.event == "passthrough")
    assert "a session takes at least 32.0 MiB" in said
    assert source.status().totals.passthrough == {"memory": 1}
    assert destination.status().totals.refused == ({"memory": 1} if whose == "destination" else {})
    assert poor.facts().memory.sessions_max == 0
    assert source.status().memory.granted_bytes == destination.status().memory.granted_bytes == 0


def test_both_agents_keep_to_the_poorer_ones_sizes_and_have_all_of_it_back_afterwards(hosts: Hosts) -> None:
    source, destination = hosts
    destination.tables["policy"] = {"require_announcement": False, "memory_bytes_max": 64 * MIB, "sessions_max": 2}
    migrate(hosts)
    (record,) = source.ended()
    assert record.passthrough_reason == ""
    agreed = next(one.detail for one in record.events if one.event == "memory")
    assert agreed.endswith("cache 13.9 MiB, window 2.0 MiB")  # of the 32 MiB that the destination has for it
    destination.ended()
    for host in hosts:
        assert host.wait(lambda status: not status.memory.granted_bytes)
        assert host.status().memory.budget_bytes > 0
