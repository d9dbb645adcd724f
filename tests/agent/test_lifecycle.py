"""An agent's life on a host of its own: started, watched, killed, stopped, its data processes crashed."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from dwcp_migrate.api.schema import AgentStatus
from dwcp_migrate.dataplane.process_pool import SPARES
from tests.agent.hosts import DESTINATION_ADDRESS, Host, announce, echoing, exchange, is_reset, receive_all

Hosts = tuple[Host, Host]


def test_a_killed_agent_leaves_no_redirect_and_migrations_run_plain(hosts: Hosts) -> None:
    source, destination = hosts
    source.start()
    workers = source.descendants()
    assert "redirect to :7801" in source.namespace.run("nft", "list", "ruleset")
    with echoing(destination.listen()):
        source.stop(signal.SIGKILL)
        assert source.namespace.run("nft", "list", "ruleset") == ""
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    for pid in workers:
        _gone(pid)


def test_a_qemu_that_only_waits_hears_of_an_agent_that_was_killed(hosts: Hosts) -> None:
    source, destination = hosts
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()
    listener = destination.listen()
    waiting = source.connect(DESTINATION_ADDRESS)
    arrived, _ = listener.accept()
    waiting.sendall(b"stream")
    arrived.settimeout(20)
    assert arrived.recv(6, socket.MSG_WAITALL) == b"stream"
    workers = source.descendants()
    source.stop(signal.SIGKILL)
    receive_all(waiting, or_reset=True)
    for pid in workers:
        _gone(pid)
    assert source.namespace.run("nft", "list", "ruleset") == ""
    for sock in (waiting, arrived, listener):
        sock.close()


def _gone(pid: int) -> None:
    """Wait until a process that is not our child is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([pidfd], [], [], 10)[0], f"{pid} lives on"
    os.close(pidfd)


def test_an_agent_that_is_told_to_stop_lets_the_migration_end_first(hosts: Hosts) -> None:
    source, destination = hosts
    source.start()
    with echoing(destination.listen()):
        sock = source.connect(DESTINATION_ADDRESS)
        sock.sendall(b"first")
        assert sock.recv(5) == b"first"
        assert source.agent is not None
        source.agent.send_signal(signal.SIGTERM)
        source.wait(lambda status: status.state == "stopping")
        assert source.status().intercept.rules == []
        sock.sendall(b"last")
        assert sock.recv(4) == b"last"
        sock.close()
        assert source.agent.wait(timeout=30) == 0
        source.agent = None
        assert exchange(source.connect(DESTINATION_ADDRESS), b"plain") == b"plain"
    assert b'"result":"completed"' in (source.directory / "state" / "history.jsonl").read_bytes()


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_data_process_that_crashes_costs_its_migration_alone(hosts: Hosts, side: str) -> None:
    source, destination = hosts
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()
    victim = source if side == "source" else destination
    listener = destination.listen()
    sock = source.connect(DESTINATION_ADDRESS)
    arrived, _ = listener.accept()
    sock.sendall(b"x" * 100)
    arrived.settimeout(20)
    assert arrived.recv(1)
    (running,) = victim.status().migrations
    os.kill(min(victim.descendants()), signal.SIGKILL)
    receive_all(sock, or_reset=True)
    receive_all(arrived, or_reset=True)
    arrived.close()
    sock.close()
    (record,) = victim.ended()
    assert (record.id, record.result) == (running.id, "failed")
    assert "crashed" in record.reason
    assert victim.status().totals.data_process_crashes == 1
    source.wait(lambda status: status.migrations == [])
    with echoing(listener):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert source.ended(2 if victim is not source else 1)[0].result == "completed"


def test_the_watchdog_is_fed(hosts: Hosts) -> None:
    source, _ = hosts
    source.start(WATCHDOG_USEC="600000")
    said = [source.notify.recv(100) for _ in range(3)]
    assert said == [b"WATCHDOG=1"] * 3


def test_a_destination_that_does_not_answer_is_probed_once(hosts: Hosts) -> None:
    source, destination = hosts
    source.start()
    silent = destination.listen(port=7802)  # accepts and never speaks
    with echoing(destination.listen()):
        for _ in range(2):
            assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    (record,) = source.ended()
    assert record.passthrough_reason == "unreachable"
    silent.setblocking(False)
    silent.accept()[0].close()
    with pytest.raises(BlockingIOError):
        silent.accept()
    silent.close()
    assert source.facts().peers[0].retry_in_s > 0


def test_nobody_waiting_at_the_destination_is_a_reset_at_once(hosts: Hosts) -> None:
    source, _ = hosts
    source.start()
    with contextlib.suppress(ConnectionResetError):  # it may come before the connect returns
        assert is_reset(source.connect(DESTINATION_ADDRESS))
    (record,) = source.ended()
    assert record.result == "failed"
    assert "port 49152" in record.reason
    assert "10.77.0.2: Connection refused" in record.reason


def test_many_migrations_leave_no_descriptor_and_no_process_behind(hosts: Hosts) -> None:
    source, destination = hosts
    source.start()

    def settled(status: AgentStatus) -> bool:
        return status.migrations == [] and status.spare_ready and len(source.descendants()) == SPARES

    with echoing(destination.listen()):
        exchange(source.connect(DESTINATION_ADDRESS), b"stream")
        source.ended()
        source.wait(settled)
        before = source.facts().open_descriptors
        for _ in range(5):
            exchange(source.connect(DESTINATION_ADDRESS), b"stream")
            source.ended()
        source.wait(settled)
    assert source.facts().open_descriptors <= before


def test_a_second_agent_is_refused_and_the_first_keeps_its_sockets_and_its_redirect(hosts: Hosts) -> None:
    source, destination = hosts
    source.start()
    second = subprocess.run(
        source.namespace.command(sys.executable, "-m", "dwcp_migrate", "agent", "--config", str(source.config)),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 5
    assert source.agent is not None
    assert f"process {source.agent.pid}" in second.stderr
    assert announce(source, "vm", "0123abcd-0000-1111-2222-333344445555") == b'{"ok":true,"error":""}\n'
    assert source.status().intercept.armed
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    source.ended()
    source.stop(signal.SIGKILL)
    source.start()  # what a dead agent held is free


def test_what_needs_a_port_that_is_taken_says_so_and_exits(hosts: Hosts) -> None:
    source, _ = hosts
    taken = source.listen(port=7802)
    source.spawn()
    assert source.agent is not None
    assert source.agent.wait(timeout=30) == 5
    source.agent = None
    assert "cannot listen on :: port 7802" in source.log
    taken.close()
