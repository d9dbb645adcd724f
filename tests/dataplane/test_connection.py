"""The outgoing half of a connection: what is kept until it is acknowledged, and what its end leaves."""

import socket
import threading

import pytest

from dwcp_migrate.dataplane.buffers import BufferPool
from dwcp_migrate.dataplane.connection import Arrival, Connection, Outlet
from dwcp_migrate.dataplane.direct.path import DirectPath
from dwcp_migrate.dataplane.flow_control import FixedWindow, Gate
from dwcp_migrate.dataplane.qemu_socket import CancelledError, Endpoint


def outlet(gate: Gate) -> Outlet:
    return Outlet(0, lambda _segment: None, gate)


def test_what_is_kept_counts_as_in_flight_until_it_is_acknowledged() -> None:
    gate = Gate(FixedWindow())
    out = outlet(gate)
    first, second = (out.retain(memoryview(bytes(size)), None) for size in (100, 50))
    assert gate.in_flight_bytes == 150
    out.acknowledged(first.sequence)
    assert gate.in_flight_bytes == 50
    out.acknowledged(second.sequence)
    assert (gate.in_flight_bytes, out.empty) == (0, True)


def test_nothing_is_kept_or_counted_once_the_connection_is_dropped() -> None:
    gate = Gate(FixedWindow())
    out = outlet(gate)
    out.retain(memoryview(bytes(100)), None)
    out.drop()
    lease = BufferPool().lease()
    with pytest.raises(CancelledError):
        out.retain(memoryview(bytes(100)), lease)
    assert gate.in_flight_bytes == 0
    lease.release()  # nobody else holds it
    with pytest.raises(AssertionError):
        lease.hold()


class Waiting:
    """A reader of a direction in which nothing comes."""

    def pump(self, endpoint: Endpoint) -> None:
        endpoint.wait_readable(None)


def test_what_a_broken_connection_had_in_hand_is_acknowledged_like_what_waited_behind_it() -> None:
    acknowledged, closed = list[int](), threading.Event()
    connection = Connection(
        outlet(Gate(FixedWindow())),
        DirectPath(lambda: None, lambda _: 0.0),
        lambda _number, sequence: acknowledged.append(sequence),
        lambda _connection, _broken: closed.set(),
        None,
    )
    ours, theirs = socket.socketpair()
    with theirs:
        connection.attach(Endpoint(ours), Waiting())
        connection.arrived(Arrival(0, 0, bytes(4 << 20)))  # more than the socket takes
        connection.arrived(Arrival(1, 0, bytes(10)))
        assert theirs.recv(1)
        connection.break_off(tell=False)
        assert closed.wait(10)
    assert sorted(acknowledged) == [0, 1]
