"""The gate bounds bytes in flight and never lets one stuck connection stop the others."""

import threading

import pytest

from dwcp_migrate.dataplane.flow_control import FLOOR_BYTES, READ_BYTES_MIN, FixedWindow, Gate
from dwcp_migrate.dataplane.qemu_socket import CancelledError


def test_a_connection_may_take_what_the_window_leaves_but_not_all_at_once() -> None:
    gate = Gate(FixedWindow(10 * FLOOR_BYTES))
    assert gate.wait(0) == FLOOR_BYTES
    gate.sent(0, 9 * FLOOR_BYTES + FLOOR_BYTES // 2)
    assert gate.wait(0) == max(READ_BYTES_MIN, FLOOR_BYTES // 2)
    assert gate.in_flight_bytes == 9 * FLOOR_BYTES + FLOOR_BYTES // 2


def test_what_waits_before_the_channels_closes_the_gate_until_it_is_short_enough() -> None:
    ahead = [0.2, 0.1, 0.06, 0.04]
    gate = Gate(FixedWindow(10 * FLOOR_BYTES), lambda: ahead.pop(0), ahead_s_max=0.05)
    gate.sent(0, FLOOR_BYTES)
    assert gate.wait(0) == READ_BYTES_MIN
    assert not ahead


def test_a_connection_that_is_stuck_leaves_the_others_their_floor() -> None:
    gate = Gate(FixedWindow(FLOOR_BYTES))
    gate.sent(0, FLOOR_BYTES)
    assert gate.wait(1) == FLOOR_BYTES


def test_a_full_window_waits_for_an_acknowledgement() -> None:
    gate = Gate(FixedWindow(FLOOR_BYTES))
    gate.sent(0, FLOOR_BYTES)
    allowed: list[int] = []
    waiter = threading.Thread(target=lambda: allowed.append(gate.wait(0)))
    waiter.start()
    assert not allowed
    gate.acknowledged(0, 100)
    waiter.join(10)
    assert allowed == [100]


def test_closing_wakes_every_waiter() -> None:
    gate = Gate(FixedWindow(FLOOR_BYTES))
    gate.sent(0, FLOOR_BYTES)
    raised = threading.Event()

    def wait() -> None:
        try:
            gate.wait(0)
        except CancelledError:
            raised.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    gate.close()
    assert raised.wait(10)
    waiter.join()
    with pytest.raises(CancelledError):
        gate.wait(1)
