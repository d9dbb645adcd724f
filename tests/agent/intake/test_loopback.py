"""Agents on hosts whose loopback has one family, both, or one that comes and goes."""

from dwcp_migrate.api.schema import ListenerStatus
from tests.agent.hosts import DESTINATION_ADDRESS, Host, echoing, exchange

Hosts = tuple[Host, Host]
PEER6 = "fd77::2"
NAME = "destination.lab"


def listeners(host: Host) -> dict[str, ListenerStatus]:
    return {found.use: found for found in host.facts().listeners}


def set_loopback6(host: Host, *, there: bool) -> None:
    host.namespace.run("ip", "-6", "address", "add" if there else "del", "::1/128", "dev", "lo")


def redirected(host: Host) -> list[str]:
    return [rule.address for rule in host.status().intercept.rules]


def test_a_reload_that_brings_the_first_ipv6_address_redirects_to_a_listener(hosts: Hosts) -> None:
    source, destination = hosts
    both = source.peers
    source.peers = [(NAME, [DESTINATION_ADDRESS])]
    source.start()
    source.peers = both
    assert source.reload() == 200
    assert redirected(source) == [DESTINATION_ADDRESS, PEER6]
    with echoing(destination.listen("::")):
        assert exchange(source.connect(PEER6), b"stream") == b"stream"
    assert source.ended()[0].address == PEER6
    source.peers = [(NAME, [DESTINATION_ADDRESS])]
    assert source.reload() == 200
    assert redirected(source) == [DESTINATION_ADDRESS]
    with echoing(destination.listen("::")):
        assert exchange(source.connect(PEER6), b"plain") == b"plain"
    assert len(source.history()) == 1


def test_without_an_ipv6_loopback_only_ipv4_is_redirected_and_doctor_says_so(hosts: Hosts) -> None:
    source, destination = hosts
    set_loopback6(source, there=False)
    source.start()
    assert redirected(source) == [DESTINATION_ADDRESS]
    assert listeners(source)["redirect"].listening
    assert not listeners(source)["redirect6"].listening
    with echoing(destination.listen("::")):
        assert exchange(source.connect(PEER6), b"plain") == b"plain"
    set_loopback6(source, there=True)
    source.wait(lambda status: len(status.intercept.rules) == 2)
    assert listeners(source)["redirect6"].listening
    set_loopback6(source, there=False)
    source.wait(lambda status: len(status.intercept.rules) == 1)
    assert not listeners(source)["redirect6"].listening


def test_a_link_address_that_comes_up_late_is_said_and_then_listened_on(hosts: Hosts) -> None:
    source, _ = hosts
    source.tables["link"] = {"listen": "10.66.0.1"}
    source.start()
    assert not listeners(source)["link"].listening
    assert "no interface of this host has 10.66.0.1" in listeners(source)["link"].error
    source.namespace.run("ip", "address", "add", "10.66.0.1/32", "dev", "lo")
    assert listeners(source)["link"].listening
    source.connect("10.66.0.1", 7802).close()


def test_the_link_takes_both_families_by_default(hosts: Hosts) -> None:
    source, destination = hosts
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()
    with echoing(destination.listen("::")), echoing(destination.listen()):
        for address in (PEER6, DESTINATION_ADDRESS):
            assert exchange(source.connect(address), b"stream") == b"stream"
            assert source.ended()[0].passthrough_reason == ""
