"""The send queue: order, pieces, what is sent again and by whom, and its limits."""

import pytest

from dwcp_migrate.errors import LocalProtocolError
from dwcp_migrate.transport.core.frames import ATTEMPTS_MAX
from dwcp_migrate.transport.core.segment import URGENT, Segment
from dwcp_migrate.transport.core.send_queue import COPIES_MAX, HEDGED_SEGMENTS_MAX, RETAINED_SEGMENTS_MAX, Outbox

NONE = frozenset[int]().__contains__
"""No channel is silent."""


def test_what_an_urgent_segment_overtook_of_its_own_connection_goes_before_it() -> None:
    outbox = Outbox()
    for connection, sequence, flags in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 3, URGENT), (0, 2, 0)):
        outbox.send(Segment(connection, sequence, flags, 1, 0, b"x"))
    sent = [outbox.pull(1, 10) for _ in range(6)]
    order = [(frame.connection, frame.sequence) for frame in sent if frame is not None]
    assert order == [(0, 0), (0, 1), (0, 3), (0, 2), (1, 0), (1, 1)]  # 2 was encoded later than 3
    assert outbox.queued_bytes == 0
    outbox.channel_lost(1)
    again = [outbox.pull(2, 10) for _ in range(4)]
    assert [frame.sequence for frame in again if frame is not None] == [0, 1, 3, 2]


def test_only_what_the_dead_channel_may_have_lost_is_sent_again() -> None:
    outbox = Outbox()
    for sequence in range(4):
        outbox.send(Segment(0, sequence, 0, 10, 0, b"0123456789"))
    outbox.pull(1, 10), outbox.pull(2, 10), outbox.pull(1, 10), outbox.pull(1, 10)
    outbox.acknowledge(0, 0)
    outbox.received(1, 1)
    outbox.channel_lost(1)
    again = [outbox.pull(2, 10), outbox.pull(2, 10), outbox.pull(2, 10)]
    assert [frame and frame.sequence for frame in again] == [2, 3, None]
    assert outbox.resent_pieces == 2


def test_a_piece_that_its_channel_does_not_bring_goes_once_more_on_an_idle_one() -> None:
    outbox = Outbox()
    for sequence in range(3):
        outbox.send(Segment(0, sequence, 0, 100, 0, b"x" * 100))
        assert outbox.pull(1 + sequence % 2, 2**18, now=0.0) is not None
    assert outbox.hedge(3, 0.4, 0.5, NONE) is None
    again = outbox.hedge(3, 0.6, 0.5, NONE)
    assert again is not None
    assert (again.sequence, again.offset, len(again.payload)) == (0, 0, 100)
    assert outbox.hedge(3, 0.7, 0.5, NONE) is None, "once, and nothing that only waits for it"
    outbox.acknowledge(0, 0)
    assert outbox.hedge(2, 0.7, 0.5, NONE) is None, "not on the channel that has it"
    following = outbox.hedge(3, 0.7, 0.5, NONE)
    assert following is not None, "on another, however soon it asks after that"
    assert following.sequence == 1
    outbox.channel_lost(3)
    assert [frame and frame.sequence for frame in (outbox.pull(4, 2**18), outbox.pull(4, 2**18))] == [1, None]
    assert outbox.hedged_pieces == 2


def test_pieces_on_a_silent_channel_go_again_though_others_are_waited_for_first_and_so_do_their_copies() -> None:
    outbox = Outbox()
    for sequence in range(3):
        outbox.send(Segment(0, sequence, 0, 100, 0, b"x" * 100))
        assert outbox.pull(1, 2**18, now=0.0) is not None
    again = [outbox.hedge(3, 0.6, 0.5, {1}.__contains__) for _ in range(4)]
    assert [frame and frame.sequence for frame in again] == [0, 1, 2, None]
    assert outbox.rescued == {1: 300}
    assert outbox.hedge(4, 1.0, 0.5, {1, 3}.__contains__) is None, "the copies are not late yet"
    for number in range(2, COPIES_MAX + 1):
        copy = outbox.hedge(2 + number, 0.6 * number, 0.5, {1, *range(3, 99)}.__contains__)
        assert copy is not None
        assert copy.sequence == 0
        for _ in range(2):
            assert outbox.hedge(2 + number, 0.6 * number, 0.5, {1, *range(3, 99)}.__contains__) is not None
    assert outbox.hedge(99, 99.0, 0.5, {*range(99)}.__contains__) is None, "that was the last copy"


def test_copies_on_channels_that_answer_are_waited_for() -> None:
    outbox = Outbox()
    outbox.send(Segment(0, 0, 0, 100, 0, b"x" * 100))
    assert outbox.pull(1, 2**18, now=0.0) is not None
    assert outbox.hedge(2, 0.6, 0.5, NONE) is not None
    assert outbox.hedge(3, 9.0, 0.5, NONE) is None


def test_late_pieces_are_looked_for_in_so_many_segments_and_no_more() -> None:
    outbox = Outbox()
    for sequence in range(HEDGED_SEGMENTS_MAX + 1):
        outbox.send(Segment(0, sequence, 0, 10, 0, b"x" * 10))
        assert outbox.pull(1, 2**18, now=0.0) is not None
    for _ in range(HEDGED_SEGMENTS_MAX):
        assert outbox.hedge(2, 1.0, 0.5, {1}.__contains__) is not None
    assert outbox.hedge(2, 1.0, 0.5, {1}.__contains__) is None


def test_a_repeated_rejection_is_news_once() -> None:
    outbox = Outbox()
    outbox.send(Segment(0, 0, 0, 1, 0, b"a"))
    assert [outbox.reject(0, 0, 0), outbox.reject(0, 0, 0)] == [True, False]
    outbox.replace(Segment(0, 0, 0, 1, 0, b"b"))
    assert [outbox.reject(0, 0, 0), outbox.reject(0, 0, 1)] == [False, True]


def test_a_segment_is_replaced_so_often_and_no_more() -> None:
    outbox = Outbox()
    outbox.send(Segment(0, 0, 0, 1, 0, b"a"))
    for _ in range(ATTEMPTS_MAX):
        outbox.replace(Segment(0, 0, 0, 1, 0, b"b"))
    with pytest.raises(LocalProtocolError):
        outbox.replace(Segment(0, 0, 0, 1, 0, b"b"))


def test_unacknowledged_segments_are_bounded() -> None:
    outbox = Outbox()
    for sequence in range(RETAINED_SEGMENTS_MAX):
        outbox.send(Segment(0, sequence))
    with pytest.raises(LocalProtocolError, match="not acknowledged"):
        outbox.send(Segment(0, RETAINED_SEGMENTS_MAX))
