"""A peer that is gone is not waited for, unlike a link that was cut."""

import os
import signal
import time

import pytest

from tests.agent.hosts import DESTINATION_ADDRESS, Host, receive_all

LOSS_S_MAX = 120.0
"""The default of `link.loss_s_max`, far beyond what these tests wait."""


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_host_that_lost_agent_and_data_process_breaks_the_connection_on_the_other_host(
    hosts: tuple[Host, Host], side: str
) -> None:
    source, destination = hosts
    for host in hosts:
        host.start()
    victim, other = (source, destination) if side == "source" else (destination, source)
    listener = destination.listen()
    sock = source.connect(DESTINATION_ADDRESS)
    arrived, _ = listener.accept()
    sock.sendall(b"x" * 100)
    arrived.settimeout(60)
    sock.settimeout(60)
    assert arrived.recv(1)
    begin = time.monotonic()
    carrying = min(victim.descendants())
    victim.stop(signal.SIGKILL)
    os.kill(carrying, signal.SIGKILL)
    victim.start()
    receive_all(arrived if side == "source" else sock, or_reset=True)
    assert time.monotonic() - begin < LOSS_S_MAX / 2
    (record,) = other.ended()
    assert record.result == "failed"
    assert victim.name in record.reason or "data process ended" in record.reason
    for end in (sock, arrived, listener):
        end.close()
