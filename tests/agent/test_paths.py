"""Real agents over two addresses of the destination at once: both carry, and either may fail or be nobody's."""

import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.units import MIB
from tests.agent.hosts import DESTINATION_ADDRESS, Host
from tests.agent.streams import carry_blocks

SECOND_ADDRESS = "fd77::2"
BLOCKS = 200

Hosts = tuple[Host, Host]


def start(hosts: Hosts, *link_addresses: str) -> None:
    source, destination = hosts
    source.peer_lines = [f"link_addresses = {list(link_addresses)!r}"]
    for host in hosts:
        host.tables["policy"] = {"require_announcement": False, "step_aside": "never"}
        host.spawn()
    for host in (source, destination):
        host.ready()


def carried(hosts: Hosts) -> schema.Migration:
    record = hosts[0].ended()[0]
    assert (record.result, record.passthrough_reason) == ("completed", "")
    assert record.counters.raw_bytes == BLOCKS * MIB
    return record


def test_both_paths_carry_at_once(hosts: Hosts) -> None:
    start(hosts, DESTINATION_ADDRESS, SECOND_ADDRESS)
    carry_blocks(*hosts, BLOCKS)
    counters = carried(hosts).counters
    assert counters.channels_lost == 0
    assert min(counters.path_bytes.values()) > BLOCKS * MIB / 10
    assert counters.path_bytes.keys() == {DESTINATION_ADDRESS, SECOND_ADDRESS}


@pytest.mark.timeout(120)
def test_a_path_that_is_lost_in_the_midst_costs_no_byte_and_no_migration(hosts: Hosts) -> None:
    source, destination = hosts
    start(hosts, DESTINATION_ADDRESS, SECOND_ADDRESS)

    def lose(number: int) -> None:
        if number == BLOCKS // 4:
            for line in destination.namespace.run("ip", "-6", "-o", "address", "show", "to", SECOND_ADDRESS).split(
                "\n"
            ):
                if line:
                    destination.namespace.run("ip", "address", "del", f"{SECOND_ADDRESS}/64", "dev", line.split()[1])

    carry_blocks(source, destination, BLOCKS, between=lose)
    counters = carried(hosts).counters
    assert counters.link_losses == 0
    assert counters.path_bytes[DESTINATION_ADDRESS] > counters.path_bytes[SECOND_ADDRESS] > 0


def test_a_path_on_which_nobody_answers_leaves_all_to_the_other(hosts: Hosts) -> None:
    nobody = "10.77.0.99"
    start(hosts, DESTINATION_ADDRESS, nobody)
    carry_blocks(*hosts, BLOCKS)
    counters = carried(hosts).counters
    assert counters.path_bytes[DESTINATION_ADDRESS] >= BLOCKS * MIB
    assert counters.path_bytes.get(nobody, 0) == 0
