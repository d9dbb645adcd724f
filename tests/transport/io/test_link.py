"""Links with real sockets and real TLS: transfers under fire, cuts and closes."""

import threading
import time

import pytest

from dwcp_migrate.errors import (
    LinkLostError,
    LocalProtocolError,
)
from dwcp_migrate.transport import FIN, OPEN, URGENT, Segment
from tests.transport.pair import MakePair, payload, send_all, wait_channels


def test_both_directions_and_many_connections_arrive_whole(make_pair: MakePair) -> None:
    pair = make_pair()
    data = [payload(seed, 1_500_000 + seed) for seed in range(4)]
    last = [send_all(pair.source_link, i, piece, 100_000) for i, piece in enumerate(data)]
    back = send_all(pair.destination_link, 0, data[3], 50_000)
    for connection, sequence in enumerate(last):
        pair.source.wait_acknowledged(connection, sequence)
    pair.destination.wait_acknowledged(0, back)
    assert [bytes(pair.destination.data[i]) for i in range(4)] == data
    assert bytes(pair.source.data[0]) == data[3]
    assert pair.source_link.counters().retained_segments == 0


def test_channels_killed_at_random_lose_and_double_nothing(make_pair: MakePair) -> None:
    pair = make_pair(channels=6)
    data = payload(1, 24_000_000)
    wait_channels(pair.source, 6)
    sender = threading.Thread(target=send_all, args=(pair.source_link, 0, data, 150_000))
    sender.start()
    for number in range(12):
        pair.source.wait_acknowledged(0, number * 10)
        pair.proxy.cut(1 + number % 3)
    sender.join()
    pair.source.wait_acknowledged(0, 159)
    assert bytes(pair.destination.data[0]) == data
    assert pair.source_link.counters().channels_lost >= 12
    assert pair.source.errors == pair.destination.errors == []


def test_a_cut_link_waits_and_resumes_within_two_seconds_of_the_heal(make_pair: MakePair) -> None:
    pair = make_pair()
    send_all(pair.source_link, 0, b"before", 6)
    pair.source.wait_acknowledged(0, 0)
    pair.proxy.refusing = True
    pair.proxy.cut()
    pair.source.wait_event("link-lost")
    pair.destination.wait_event("link-lost")
    pair.source_link.send(Segment(0, 1, 0, 6, 0, b"during"))
    pair.destination_link.send(Segment(0, 0, 0, 4, 0, b"back"))
    pair.source.wait(lambda: pair.source_link.counters().channel_errors.get("PeerUnreachableError", 0) >= 4)
    healed = time.monotonic()
    pair.proxy.refusing = False
    pair.source.wait_acknowledged(0, 1)
    assert time.monotonic() - healed < 2.0
    pair.destination.wait_acknowledged(0, 0)
    pair.source.wait_event("link-restored")
    pair.destination.wait_event("link-restored")
    assert bytes(pair.destination.data[0]) == b"beforeduring"


def test_a_link_that_stalls_without_a_word_is_found_out_and_resumes(make_pair: MakePair) -> None:
    pair = make_pair(channels=2)
    wait_channels(pair.source, 2)
    pair.proxy.flowing.clear()
    pair.source_link.send(Segment(0, 0, 0, 3, 0, b"abc"))
    pair.source.wait_event("channel-lost no progress", 8.0)
    pair.source.wait_event("link-lost", 8.0)
    pair.proxy.flowing.set()
    healed = time.monotonic()
    pair.source.wait_acknowledged(0, 0)
    assert time.monotonic() - healed < 2.0
    assert bytes(pair.destination.data[0]) == b"abc"


def test_a_half_closed_channel_is_replaced(make_pair: MakePair) -> None:
    pair = make_pair(channels=2)
    wait_channels(pair.source, 2)
    pair.proxy.half_close()
    pair.source.wait_event("channel-lost")
    pair.source.wait(lambda: pair.source.events[-1] == "channels 2")
    last = send_all(pair.source_link, 0, payload(2, 500_000), 50_000)
    pair.source.wait_acknowledged(0, last)


def test_the_link_fails_after_its_limit_without_channels(make_pair: MakePair) -> None:
    pair = make_pair(loss_s_max=0.5)
    wait_channels(pair.source, 4)
    pair.proxy.refusing = True
    pair.proxy.cut()
    for side in (pair.source, pair.destination):
        side.wait_event("failed", 5.0)
        assert isinstance(side.errors[0], LinkLostError)


def test_an_orderly_close_is_told_apart_from_a_cut(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.source_link.send(Segment(0, 0, OPEN))
    pair.source_link.send(Segment(0, 1, FIN))
    pair.source.wait_acknowledged(0, 1)
    pair.source_link.close()
    pair.destination.wait_event("closed")
    assert pair.destination.errors == pair.source.errors == []
    assert "link-lost" not in pair.destination.events


def test_a_close_with_a_reason_fails_the_peer_at_once(make_pair: MakePair) -> None:
    pair = make_pair()
    wait_channels(pair.source, 4)
    pair.destination_link.close("QEMU is gone")
    pair.source.wait_event("failed", 5.0)
    assert "QEMU is gone" in str(pair.source.errors[0])


def test_a_rejected_segment_comes_again_replaced(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.destination.reject_next = 2
    pair.source_link.send(Segment(0, 0, 0, 3, 0, b"bad"))
    for number in (1, 2):
        pair.source.wait_rejections(number)
        pair.source_link.replace(Segment(0, 0, URGENT, 4, 0, b"good"))
    pair.source.wait_acknowledged(0, 0)
    assert bytes(pair.destination.data[0]) == b"good"


def test_urgent_segments_overtake_a_backlog(make_pair: MakePair) -> None:
    pair = make_pair(channels=1)
    wait_channels(pair.source, 1)
    pair.proxy.flowing.clear()
    for sequence in range(30):
        pair.source_link.send(Segment(0, sequence, 0, 1_000_000, 0, bytes(1_000_000)))
    pair.source_link.send(Segment(1, 0, URGENT, 3, 0, b"now"))
    pair.proxy.flowing.set()
    pair.source.wait_acknowledged(1, 0)
    assert len(pair.destination.data.get(0, b"")) < 29_000_000
    pair.source.wait_acknowledged(0, 29)


@pytest.mark.long
def test_five_hundred_and_twelve_channels_come_up_and_carry(make_pair: MakePair) -> None:
    pair = make_pair(channels=512, channels_max=512)
    wait_channels(pair.source, 512)
    last = send_all(pair.source_link, 0, payload(3, 20_000_000), 200_000)
    pair.source.wait_acknowledged(0, last)
    assert bytes(pair.destination.data[0]) == payload(3, 20_000_000)


def test_an_adaptive_link_starts_with_eight_channels(make_pair: MakePair) -> None:
    pair = make_pair(channels=0)
    wait_channels(pair.source, 8)
    assert pair.source_link.counters().rtt_s >= 0


def test_a_sequence_sent_twice_is_our_own_fault_and_harms_nothing(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.source_link.send(Segment(0, 0, 0, 1, 0, b"a"))
    with pytest.raises(LocalProtocolError, match="twice"):
        pair.source_link.send(Segment(0, 0, 0, 1, 0, b"b"))
    pair.source.wait_acknowledged(0, 0)
    assert bytes(pair.destination.data[0]) == b"a"


def test_what_a_stuck_channel_holds_comes_over_another_that_is_idle(make_pair: MakePair) -> None:
    pair = make_pair()
    wait_channels(pair.source, 4)
    send_all(pair.source_link, 0, b"first", 5)
    pair.source.wait_acknowledged(0, 0)
    pair.source.wait(lambda: pair.source_link.counters().rtt_s > 0)
    pair.proxy.stall(1)
    for sequence in range(1, 40):
        pair.source_link.send(Segment(0, sequence, 0, 20_000, 0, b"y" * 20_000))  # more than a turn: each gets some
    pair.source.wait_acknowledged(0, 39)
    counters = pair.source_link.counters()
    assert counters.hedged_pieces > 0
    assert counters.channels_lost == 0, "it took as long as a channel takes to be given up"
