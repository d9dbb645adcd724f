"""Channels that leave the link to carry one connection as it is."""

import socket
import threading

import pytest

from dwcp_migrate.transport.core.protocol import CHANNELS_KEPT
from tests.transport.pair import MakePair, Pair, payload, send_all, wait_channels


def detach(pair: Pair, connection: int) -> tuple[socket.socket, socket.socket]:
    pair.source_link.detach(connection)
    for side in (pair.source, pair.destination):
        side.wait_event(f"detached {connection}")
    ends = pair.source.detached[connection], pair.destination.detached[connection]
    for end in ends:
        end.settimeout(30)
    return ends


def test_a_detached_channel_carries_plain_bytes_both_ways_and_its_half_close(make_pair: MakePair) -> None:
    pair = make_pair()
    wait_channels(pair.source, 4)
    ours, theirs = detach(pair, 7)
    data = payload(3, 3_000_000)

    def send() -> None:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    theirs.sendall(b"answer")
    received = bytearray()
    while piece := theirs.recv(65536):
        received += piece
    sender.join()
    assert bytes(received) == data
    assert ours.recv(6, socket.MSG_WAITALL) == b"answer"


def test_channels_that_leave_under_load_lose_and_double_no_segment(make_pair: MakePair) -> None:
    pair = make_pair(channels=8)
    wait_channels(pair.source, 8)
    data, back = payload(1, 12_000_000), payload(2, 3_000_000)
    senders = [
        threading.Thread(target=send_all, args=(pair.source_link, 0, data, 100_000)),
        threading.Thread(target=send_all, args=(pair.destination_link, 0, back, 50_000)),
    ]
    for sender in senders:
        sender.start()
    for connection in range(1, 4):
        pair.source.wait_acknowledged(0, 20 * connection)
        ours, theirs = detach(pair, connection)
        ours.sendall(b"plain")
        assert theirs.recv(5, socket.MSG_WAITALL) == b"plain"
    for sender in senders:
        sender.join()
    pair.source.wait_acknowledged(0, 119)
    pair.destination.wait_acknowledged(0, 59)
    assert bytes(pair.destination.data[0]) == data
    assert bytes(pair.source.data[0]) == back
    assert pair.source_link.counters().channels_lost == pair.destination_link.counters().channels_lost == 0
    assert pair.source_link.counters().resent_pieces == 0


def test_the_last_channels_stay_with_the_link(make_pair: MakePair) -> None:
    pair = make_pair(channels=CHANNELS_KEPT)
    wait_channels(pair.source, CHANNELS_KEPT)
    pair.source_link.detach(0)
    pair.source.wait_event("detach-failed 0")
    send_all(pair.source_link, 0, b"still there", 11)
    pair.source.wait_acknowledged(0, 0)


@pytest.mark.parametrize("stalled", [False, True])
def test_a_channel_that_dies_as_it_leaves_is_told_and_loses_nothing(make_pair: MakePair, *, stalled: bool) -> None:
    pair = make_pair()
    wait_channels(pair.source, 4)
    if stalled:
        pair.proxy.flowing.clear()
    data = payload(5, 2_000_000)
    send_all(pair.source_link, 0, data, 100_000)
    pair.source_link.detach(1)
    pair.proxy.cut()
    pair.proxy.flowing.set()
    pair.source.wait(lambda: any(event in ("detach-failed 1", "detached 1") for event in pair.source.events))
    pair.source.wait_acknowledged(0, 19)
    assert bytes(pair.destination.data[0]) == data
