"""An agent's life on a host of its own: started, watched, killed, stopped, its data processes crashed."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_migrate.api.schema import AgentStatus
from dwcp_migrate.dataplane.process_pool import SPARES
from dwcp_migrate.dataplane.worker import LINGER_S
from tests.agent.hosts import DESTINATION_ADDRESS, WAIT_S, Host, announce, echoing, exchange, is_reset, receive_all

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


@contextlib.contextmanager
def under_way(hosts: Hosts) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection between both, accelerated, with its first bytes across; yields its ends."""
    source, destination = hosts
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()
    with destination.listen() as listener, source.connect(DESTINATION_ADDRESS) as ours:
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(WAIT_S)
            ours.settimeout(WAIT_S)
            ours.sendall(b"first")
            assert theirs.recv(5, socket.MSG_WAITALL) == b"first"
            yield ours, theirs


def goes_on(ours: socket.socket, theirs: socket.socket) -> None:
    """Bytes cross both ways."""
    ours.sendall(b"request")
    assert theirs.recv(7, socket.MSG_WAITALL) == b"request"
    theirs.sendall(b"answer")
    assert ours.recv(6, socket.MSG_WAITALL) == b"answer"


def end(ours: socket.socket, theirs: socket.socket) -> None:
    """The connection ends in order."""
    for sock in (ours, theirs):
        sock.shutdown(socket.SHUT_WR)
    assert (receive_all(theirs), receive_all(ours)) == (b"", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_migration_goes_on_without_its_agent_and_the_next_one_adopts_it(
    hosts: Hosts, side: str, number: signal.Signals
) -> None:
    host = hosts[0] if side == "source" else hosts[1]
    with under_way(hosts) as (ours, theirs):
        (before,) = host.status().migrations
        host.stop(number)
        goes_on(ours, theirs)
        host.start()
        (after,) = host.status().migrations
        assert (after.id, after.started_at, after.peer) == (before.id, before.started_at, before.peer)
        assert host.status().totals.adopted == 1
        goes_on(ours, theirs)
        end(ours, theirs)
    for each in hosts:
        each.wait(lambda status: status.migrations == [])
        (record,) = each.history()
        assert (record.id, record.result) == (before.id, "completed")
        opened = [event.serial for event in record.events if event.event == "connection-opened"]
        assert len(opened) == 1
        assert record.counters.raw_bytes == len(b"firstrequestrequest")


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_migration_that_ends_without_an_agent_is_recorded_by_the_next_one(hosts: Hosts, side: str) -> None:
    host = hosts[0] if side == "source" else hosts[1]
    with under_way(hosts) as (ours, theirs):
        workers = host.descendants()
        host.stop(signal.SIGKILL)
        goes_on(ours, theirs)
        end(ours, theirs)
        for pid in workers:
            _gone(pid, LINGER_S + 20)
    host.start()
    host.wait(lambda status: status.migrations == [])
    (record,) = host.history()
    assert record.result == "completed"
    assert record.counters.raw_bytes == len(b"firstrequest")
    if side == "destination":  # the source told nobody, so it is asked
        assert record.peer_result == "completed"
    assert list((host.directory / "run" / "sessions").iterdir()) == []


def test_a_migration_whose_data_process_died_without_an_agent_is_recorded_once_as_failed(hosts: Hosts) -> None:
    source, _ = hosts
    with under_way(hosts) as (ours, theirs):
        carrying = min(source.descendants())
        source.stop(signal.SIGKILL)
        os.kill(carrying, signal.SIGKILL)
        receive_all(ours, or_reset=True)
        theirs.close()
    source.start()
    (record,) = source.ended()
    assert record.result == "failed"
    assert "while there was no agent" in record.reason
    source.stop(signal.SIGKILL)
    source.start()
    assert [found.id for found in source.history()] == [record.id]


@contextlib.contextmanager
def hung(host: Host) -> Iterator[None]:
    """The host's agent answers nobody meanwhile."""
    assert host.agent is not None
    host.agent.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        host.agent.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "unreachable"), (signal.SIGKILL, "left-alone")])
def test_connections_of_an_agent_that_ends_while_it_asks_its_peer_are_relayed_in_order(
    hosts: Hosts, number: signal.Signals, reason: str
) -> None:
    source, destination = hosts
    for host in hosts:
        host.start()
    with destination.listen() as listener, hung(destination), contextlib.ExitStack() as stack:
        ours = [stack.enter_context(source.connect(DESTINATION_ADDRESS)) for _ in range(3)]
        source.wait(lambda status: len(status.migrations) == 1)
        source.stop(number)
        theirs = [stack.enter_context(listener.accept()[0]) for _ in ours]
        for near, far, word in zip(ours, theirs, (b"one", b"two", b"six"), strict=True):
            near.sendall(word)
            assert far.recv(3, socket.MSG_WAITALL) == word
        source.start()
        (adopted,) = source.status().migrations
        assert adopted.passthrough_reason == reason
        later = stack.enter_context(source.connect(DESTINATION_ADDRESS))
        last = stack.enter_context(listener.accept()[0])
        for near, far in zip([*ours, later], [*theirs, last], strict=True):
            end(near, far)
    (record,) = source.ended()
    assert (record.result, record.passthrough_reason) == ("completed", reason)


def test_a_migration_that_passes_through_goes_on_without_its_agent_too(hosts: Hosts) -> None:
    source, destination = hosts
    source.start()
    with echoing(destination.listen()), source.connect(DESTINATION_ADDRESS) as sock:
        sock.sendall(b"first")
        assert sock.recv(5, socket.MSG_WAITALL) == b"first"
        for number in (signal.SIGTERM, signal.SIGKILL):
            source.stop(number)
            sock.sendall(b"more")
            assert sock.recv(4, socket.MSG_WAITALL) == b"more"
            source.start()
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b""
    source.wait(lambda status: status.migrations == [])
    (record,) = source.history()
    assert (record.result, record.passthrough_reason) == ("completed", "unreachable")
    assert [event.event for event in record.events].count("adopted") == 2


def test_a_connection_that_comes_after_an_adoption_belongs_to_the_same_migration(hosts: Hosts) -> None:
    source, destination = hosts
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()
    with echoing(destination.listen()), source.connect(DESTINATION_ADDRESS) as first:
        first.sendall(b"first")
        assert first.recv(5, socket.MSG_WAITALL) == b"first"
        source.stop(signal.SIGKILL)
        source.start()
        assert exchange(source.connect(DESTINATION_ADDRESS), b"second") == b"second"
        first.shutdown(socket.SHUT_WR)
        assert receive_all(first) == b""
    for host in hosts:
        host.wait(lambda status: status.migrations == [])
        (record,) = host.history()
        assert sum(event.event == "connection-opened" for event in record.events) == 2


def _gone(pid: int, timeout_s: float = 10.0) -> None:
    """Wait until a process that is not our child is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([pidfd], [], [], timeout_s)[0], f"{pid} lives on"
    os.close(pidfd)


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


def dials(host: Host) -> bool:
    """Whether a connection of the host's waits for an answer to its first packet."""
    table = host.namespace.call(Path("/proc/thread-self/net/tcp").read_text)
    return any(line.split()[3] == "02" for line in table.splitlines()[1:])


def test_a_connection_that_is_dialled_onward_while_its_migration_ends_begins_the_next_one(hosts: Hosts) -> None:
    source, destination = hosts
    source.start()
    with destination.listen() as listener, contextlib.ExitStack() as stack:
        ours = stack.enter_context(source.connect(DESTINATION_ADDRESS))
        theirs = stack.enter_context(listener.accept()[0])
        listener.listen(0)
        stack.enter_context(destination.connect(DESTINATION_ADDRESS))  # fills the listener's queue
        late = stack.enter_context(source.connect(DESTINATION_ADDRESS))
        while not dials(source):
            assert source.status().migrations
        end(ours, theirs)
        source.ended()
        stack.enter_context(listener.accept()[0])
        far = stack.enter_context(listener.accept()[0])
        late.sendall(b"late")
        assert far.recv(4, socket.MSG_WAITALL) == b"late"
        end(late, far)
    assert [record.result for record in source.ended()] == ["completed"]
    assert len(source.history()) == 2


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
