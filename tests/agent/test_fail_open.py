"""What must never cost a migration: real agents on two hosts, plain TCP in the place of QEMU, one fault a test."""

import contextlib
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from dwcp_migrate.agent.migrations.outgoing import LINK_S_MAX
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.dataplane.process_pool import SPARES
from dwcp_migrate.hypervisor.intercept import ALIVE_S
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


OTHER_ADDRESS = "fd77::2"
"""The destination's other address."""


@pytest.mark.parametrize("dialled", [DESTINATION_ADDRESS, OTHER_ADDRESS])
@pytest.mark.parametrize("agent", ["running", "absent"])
def test_qemu_that_listens_on_another_address_than_the_dialled_one_is_found_there(
    hosts: Hosts, dialled: str, agent: str
) -> None:
    source, destination = hosts
    start(hosts)
    announce(destination, "vm", UUID)
    if agent == "absent":
        destination.stop()
    with echoing(destination.listen(OTHER_ADDRESS if dialled == DESTINATION_ADDRESS else DESTINATION_ADDRESS)):
        assert exchange(source.connect(dialled), b"stream") == b"stream"
    (record,) = source.ended()
    assert record.passthrough_reason == ("unreachable" if agent == "absent" else "")
    where = record if agent == "absent" else destination.ended()[0]
    assert dialled in said(where)["onward"]


def drop(host: Host, *rule: str) -> None:
    """Have the host's firewall drop what arrives and matches."""
    host.namespace.run("nft", "add table inet test")
    host.namespace.run("nft", "add chain inet test in { type filter hook input priority 0; }")
    host.namespace.run("nft", "add", "rule", "inet", "test", "in", *rule, "drop")


def test_a_link_port_filtered_on_the_dialled_address_is_reached_on_another(hosts: Hosts) -> None:
    source, destination = hosts
    destination.tables["link"] = {"listen": "::"}
    start(hosts)
    drop(destination, "ip", "daddr", DESTINATION_ADDRESS, "tcp", "dport", "7802")
    assert migrate(hosts).passthrough_reason == ""
    (peer,) = source.facts().peers
    assert (peer.reachable, list(peer.silent)) == (True, [DESTINATION_ADDRESS])


def test_a_link_port_that_one_address_refuses_is_reached_on_another_by_both_sides(hosts: Hosts) -> None:
    source, destination = hosts
    source.tables["link"] = destination.tables["link"] = {"listen": "::", "connect_timeout_s": 1.5}
    source.peers = [("destination.lab", ["10.77.0.3", *source.peers[0][1]])]
    source.namespace.run("ip", "route", "add", "unreachable", "10.77.0.3")
    start(hosts)
    assert migrate(hosts).passthrough_reason == ""
    assert list(source.facts().peers[0].silent) == ["10.77.0.3"]


@pytest.mark.parametrize("acquainted", [False, True])
def test_a_peer_whose_agent_hangs_costs_seconds_and_not_the_migration(
    hosts: Hosts,
    acquainted: bool,  # noqa: FBT001
) -> None:
    source, destination = hosts
    start(hosts)
    if acquainted:  # the connection of before is kept, and its other end does not answer either
        assert source.facts().peers[0].reachable
    announce(destination, "vm", UUID)
    assert destination.agent is not None
    destination.agent.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
        took_s = time.monotonic() - began
        (record,) = source.ended()
        assert (record.result, record.passthrough_reason) == ("completed", "unreachable")
        assert "did not answer" in said(record)["passthrough"]
        assert took_s < 6.0
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"  # asks no more for a while
    (record,) = source.ended()
    assert record.duration_s(record.ended_at) < 1.0
    destination.agent.send_signal(signal.SIGCONT)


def test_an_agent_that_is_back_is_asked_at_once(hosts: Hosts) -> None:
    source, destination = hosts
    start(hosts)
    destination.stop()
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert source.ended()[0].passthrough_reason == "unreachable"
    destination.start()
    assert migrate(hosts).passthrough_reason == ""


def stop_data_processes(host: Host) -> list[int]:
    """Have all waiting data processes take what they are given and say nothing; returns them."""

    def waiting() -> list[int]:
        # A child that has not executed its program yet must not be stopped: its parent waits for it.
        return [pid for pid in host.descendants() if b"dataplane.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    host.wait(lambda _: len(waiting()) == SPARES)
    stopped = waiting()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    return stopped


def test_a_link_port_that_answers_and_then_carries_nothing_is_given_up_before_the_first_byte(hosts: Hosts) -> None:
    source, destination = hosts
    start(hosts)
    stop_data_processes(destination)
    announce(destination, "vm", UUID)
    with echoing(destination.listen()) as brought:
        began = time.monotonic()
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
        took_s = time.monotonic() - began
    assert brought == [b"stream"]
    (record,) = source.ended()
    assert (record.result, record.passthrough_reason) == ("completed", "no-link")
    assert "no channel came up" in said(record)["passthrough"]
    assert took_s < LINK_S_MAX + 4.0
    assert source.status().totals.passthrough == {"no-link": 1}
    destination.wait(lambda status: status.migrations == [])
    assert destination.history() == []  # it was withdrawn: nothing is said of a migration that was none here


def test_what_is_withdrawn_may_be_carried_the_next_time(hosts: Hosts) -> None:
    source, destination = hosts
    start(hosts)
    stopped = stop_data_processes(destination)
    assert migrate(hosts).passthrough_reason == "no-link"
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):  # the one that was taken has been ended
            os.kill(pid, signal.SIGCONT)
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"  # announced before, not again
    assert source.ended()[0].passthrough_reason == ""


@pytest.mark.parametrize("listening", [False, True])
def test_a_migration_that_is_cancelled_while_the_peer_is_asked_leaves_a_record(
    hosts: Hosts,
    listening: bool,  # noqa: FBT001
) -> None:
    source, destination = hosts
    start(hosts)
    assert destination.agent is not None
    destination.agent.send_signal(signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        if listening:
            stack.enter_context(echoing(destination.listen()))
        sock = source.connect(DESTINATION_ADDRESS)
        source.wait(lambda status: len(status.migrations) == 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        (record,) = source.ended()
    assert (record.result, record.passthrough_reason) == ("failed", "unreachable")
    assert record.reason
    assert source.status().totals.migrations == {"source failed": 1}


def test_without_any_data_process_the_agent_relays_by_itself(hosts: Hosts, tmp_path: Path) -> None:
    source, destination = hosts
    destination.start()
    source.start(PYTHONPATH=str(tmp_path / "shadow"), PYTHONSAFEPATH="1")
    shadow = tmp_path / "shadow" / "dwcp_migrate"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise SystemExit('no data process today')")  # from now on they do not start
    for pid in source.descendants():
        os.kill(pid, signal.SIGKILL)
    data = os.urandom(3 << 20)
    with echoing(destination.listen()) as brought:
        assert exchange(source.connect(DESTINATION_ADDRESS), data) == data
    assert brought == [data]
    (record,) = source.ended()
    assert (record.result, record.passthrough_reason) == ("completed", "no-data-process")
    assert "relayed-by-the-agent" in said(record)
    assert record.counters.raw_bytes == len(data)


def test_an_agent_of_ours_that_hangs_catches_nothing_any_more(hosts: Hosts) -> None:
    source, destination = hosts
    start(hosts)
    assert source.agent is not None
    source.agent.send_signal(signal.SIGSTOP)
    with echoing(destination.listen()) as brought:
        for _ in range(int(ALIVE_S) + 4):  # one that is caught before the redirect lapses waits for the agent
            with contextlib.suppress(TimeoutError), source.connect(DESTINATION_ADDRESS) as sock:
                sock.sendall(b"stream")
                sock.settimeout(1.0)
                if sock.recv(6) == b"stream":
                    break
    assert b"stream" in brought
    source.agent.send_signal(signal.SIGCONT)
    source.wait(lambda status: status.intercept.armed)
