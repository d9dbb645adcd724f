"""The gate bounds bytes in flight, serves in turn, and never lets one stuck connection stop the others."""

import threading
from collections.abc import Callable

import pytest

from dwcp_migrate.dataplane.flow_control import (
    FLOOR_BYTES,
    GRANT_BYTES_MIN,
    READ_BYTES_MIN,
    URGENT_BYTES,
    FixedWindow,
    Gate,
)
from dwcp_migrate.dataplane.qemu_socket import CancelledError
from dwcp_migrate.units import MIB

WINDOW = 10 * READ_BYTES_MIN


def in_thread(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target)
    thread.start()
    return thread


def test_a_connection_may_take_what_the_window_leaves_but_not_all_at_once() -> None:
    gate = Gate(FixedWindow(WINDOW))
    assert gate.wait(0) == READ_BYTES_MIN
    gate.sent(0, WINDOW - GRANT_BYTES_MIN)
    assert gate.wait(0) == GRANT_BYTES_MIN
    assert gate.in_flight_bytes == WINDOW - GRANT_BYTES_MIN


def test_what_is_granted_is_reserved_and_what_is_not_taken_is_given_back() -> None:
    gate = Gate(FixedWindow(READ_BYTES_MIN + GRANT_BYTES_MIN))
    assert gate.wait(0) == READ_BYTES_MIN
    assert gate.wait(1) == GRANT_BYTES_MIN
    gate.sent(0, 1000)
    gate.settle(0)
    assert gate.wait(2) == READ_BYTES_MIN - 1000
    assert gate.in_flight_bytes == 1000


@pytest.mark.parametrize("connections", [1, 8, 64, 255])
def test_bytes_in_flight_stay_within_the_window_and_the_floors_for_any_number_of_connections(connections: int) -> None:
    limit = 64 * MIB
    gate = Gate(FixedWindow(limit))
    most, rounds, lock = 0, 6, threading.Lock()

    def take(connection: int) -> None:
        nonlocal most
        for _ in range(rounds):
            count = gate.wait(connection)
            gate.sent(connection, count)
            gate.settle(connection)
            with lock:
                most = max(most, gate.in_flight_bytes)
            gate.acknowledged(connection, count)

    for thread in [in_thread(lambda number=number: take(number)) for number in range(connections)]:  # type: ignore[misc]
        thread.join()
    assert gate.in_flight_bytes == 0
    assert most <= 1.2 * limit


def test_all_readers_at_once_are_granted_the_window_once() -> None:
    gate = Gate(FixedWindow(WINDOW))
    granted = sum(gate.wait(connection) for connection in range(10))
    assert granted == WINDOW
    assert gate.wait(10) == FLOOR_BYTES


def test_what_waits_before_the_channels_closes_the_gate_until_it_is_short_enough() -> None:
    ahead = [0.2, 0.1, 0.06, 0.055, 0.04]
    gate = Gate(FixedWindow(WINDOW), lambda: ahead.pop(0), ahead_s_max=0.05)
    gate.sent(0, FLOOR_BYTES)
    assert gate.wait(0) == READ_BYTES_MIN
    assert not ahead


def test_a_connection_that_is_stuck_leaves_the_others_their_floor() -> None:
    gate = Gate(FixedWindow(FLOOR_BYTES))
    gate.sent(0, FLOOR_BYTES)
    assert gate.wait(1) == FLOOR_BYTES


def test_a_connection_that_a_guest_waits_for_is_not_held_by_a_full_window() -> None:
    gate = Gate(FixedWindow(WINDOW))
    gate.sent(0, WINDOW)
    gate.sent(1, FLOOR_BYTES)
    assert gate.wait(1, urgent=True) == URGENT_BYTES - FLOOR_BYTES


def test_a_full_window_waits_until_a_read_is_worth_it() -> None:
    gate = Gate(FixedWindow(WINDOW))
    gate.sent(0, WINDOW)
    allowed: list[int] = []
    waiter = in_thread(lambda: allowed.append(gate.wait(0)))
    gate.acknowledged(0, GRANT_BYTES_MIN - 1)
    waiter.join(0.05)
    assert not allowed
    gate.acknowledged(0, 1)
    waiter.join(10)
    assert allowed == [GRANT_BYTES_MIN]


def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    window = FixedWindow(0)
    gate = Gate(window)
    served: list[int] = []
    waiters = []
    for connection in range(4):
        gate.sent(connection, FLOOR_BYTES)
        waiters.append(in_thread(lambda number=connection: served.append(number if gate.wait(number) else -1)))  # type: ignore[misc]
        while len(gate._line) <= connection:
            pass  # until it waits
    gate.sent(9, WINDOW)
    gate.acknowledged(9, WINDOW)  # nobody is served by what was there before
    assert not served
    for waiter in waiters:
        window.on_acknowledged(0.0, GRANT_BYTES_MIN + (4 * FLOOR_BYTES if waiter is waiters[0] else 0))
        gate.settle(9)
        waiter.join(10)
    assert served == [0, 1, 2, 3]


def test_closing_wakes_every_waiter() -> None:
    gate = Gate(FixedWindow(FLOOR_BYTES))
    raised = threading.Semaphore(0)
    for connection in range(3):
        gate.sent(connection, FLOOR_BYTES)

    def wait(connection: int) -> None:
        try:
            gate.wait(connection)
        except CancelledError:
            raised.release()

    waiters = [in_thread(lambda number=number: wait(number)) for number in range(3)]  # type: ignore[misc]
    gate.close()
    for waiter in waiters:
        waiter.join(10)
        assert raised.acquire(timeout=10)
    with pytest.raises(CancelledError):
        gate.wait(1)
