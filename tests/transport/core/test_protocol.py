"""The core under seeded chaos: channels die, frames are lost, doubled and reordered; every segment arrives once."""

import random
from collections import deque

import pytest

from dwcp_migrate.errors import LimitExceededError, LinkLostError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.transport.core.channel_health import PONGS_MAX, STALLED_S
from dwcp_migrate.transport.core.frames import Code, Frame, FrameKind
from dwcp_migrate.transport.core.frames import close as close_frame
from dwcp_migrate.transport.core.protocol import (
    Acknowledged,
    ChannelDead,
    Closed,
    Event,
    LinkFailed,
    LinkState,
    Rejected,
    Retired,
)
from dwcp_migrate.transport.core.reassembly import Reassembly
from dwcp_migrate.transport.core.receive_queue import AHEAD_MAX, PARTIAL_BYTES_MAX, RUNS_MAX, Inbox
from dwcp_migrate.transport.core.segment import PAYLOAD_BYTES_MAX, URGENT, Segment


class Side:
    """A session in miniature on one end: sends, orders, acknowledges, sometimes rejects."""

    def __init__(self, rng: random.Random, connections: int) -> None:
        self.rng = rng
        self.state = LinkState(0.0, 120.0)
        self.sent: list[list[bytes]] = [[] for _ in range(connections)]
        self.got: list[list[bytes]] = [[] for _ in range(connections)]
        self.acknowledged = [-1] * connections
        self._order = [Reassembly[bytes]() for _ in range(connections)]
        self.rejecting = 0.05

    def send(self) -> None:
        connection = self.rng.randrange(len(self.sent))
        size = self.rng.choice((0, 1, 100, 20_000, 70_000, 300_000))
        data = self.rng.randbytes(size)
        flags = URGENT if self.rng.random() < 0.2 else 0
        self.state.outbox.send(Segment(connection, len(self.sent[connection]), flags, size, 0, data))
        self.sent[connection].append(data)

    def take(self, event: Event | None) -> None:
        match event:
            case Segment():
                if self.rng.random() < self.rejecting:
                    self.state.reject(event.connection, event.sequence)
                    return
                order = self._order[event.connection]
                order.put(event.sequence, bytes(event.payload), len(event.payload))
                while (item := order.pop()) is not None:
                    self.got[event.connection].append(item)
                if order.next_sequence and self.rng.random() < 0.8:
                    self.state.acknowledge(event.connection, order.next_sequence - 1)
            case Acknowledged():
                assert event.sequence > self.acknowledged[event.connection], "acknowledgements only grow"
                self.acknowledged[event.connection] = event.sequence
            case Rejected():
                data = self.sent[event.connection][event.sequence]
                self.state.outbox.replace(Segment(event.connection, event.sequence, 0, len(data), 0, data))

    def acknowledge_all(self) -> None:
        for connection, order in enumerate(self._order):
            if order.next_sequence:
                self.state.acknowledge(connection, order.next_sequence - 1)


class World:
    """Two sides and the channels between them: for each channel and direction a queue of frames under way."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.sides = Side(self.rng, 3), Side(self.rng, 3)
        self.channels: dict[int, tuple[deque[Frame], deque[Frame]]] = {}
        self.numbers = 0

    def open(self) -> None:
        self.numbers += 1
        self.channels[self.numbers] = deque(), deque()
        for side in self.sides:
            side.state.channel_up(self.now, self.numbers)

    def kill(self) -> None:
        number = self.rng.choice(list(self.channels))
        queues = self.channels.pop(number)
        for direction, queue in enumerate(queues):
            for _ in range(self.rng.randint(0, len(queue))):  # some of it still arrives, the rest is lost
                self.deliver(number, direction, queue)
        for side in self.sides:
            side.state.channel_down(self.now, number)

    def push(self, number: int, direction: int) -> bool:
        frame = self.sides[direction].state.pull(self.now, number)
        if frame is not None:
            self.channels[number][direction].append(frame)
        return frame is not None

    def deliver(self, number: int, direction: int, queue: deque[Frame]) -> None:
        side = self.sides[1 - direction]
        side.take(side.state.receive(self.now, number, queue.popleft()))

    def step(self) -> None:
        self.now += 0.01
        action = self.rng.random()
        if action < 0.15 and len(self.channels) < 6:
            self.open()
        elif action < 0.18 and self.channels:
            self.kill()
        elif action < 0.4:
            self.rng.choice(self.sides).send()
        elif self.channels:
            number, direction = self.rng.choice(list(self.channels)), self.rng.randrange(2)
            if self.rng.random() < 0.5:
                self.push(number, direction)
            elif self.channels[number][direction]:
                self.deliver(number, direction, self.channels[number][direction])

    def drain(self) -> None:
        for side in self.sides:
            side.rejecting = 0.0
        self.open()
        busy = True
        while busy:
            busy = False
            for number, queues in list(self.channels.items()):
                for direction, queue in enumerate(queues):
                    while self.push(number, direction) or queue:
                        busy = True
                        if queue:
                            self.deliver(number, direction, queue)
            for side in self.sides:
                side.acknowledge_all()
                busy = busy or side.state.has_work(self.now)


@pytest.mark.parametrize("seed", range(60))
def test_every_segment_arrives_once_and_in_order_whatever_dies(seed: int) -> None:
    world = World(seed)
    for _ in range(600):
        world.step()
    world.drain()
    one, other = world.sides
    for side, peer in ((one, other), (other, one)):
        assert peer.got == side.sent, f"seed {seed}"
        assert side.acknowledged == [len(of_connection) - 1 for of_connection in side.sent], f"seed {seed}"
        assert side.state.outbox.retained_segments == side.state.outbox.retained_bytes == 0
        assert side.state.outbox.queued_bytes == 0
        assert side.state.inbox.partial_bytes == 0


def test_the_chaos_really_loses_and_doubles_frames() -> None:
    worlds = [World(seed) for seed in range(5)]
    for world in worlds:
        for _ in range(600):
            world.step()
        world.drain()
    states = [side.state for world in worlds for side in world.sides]
    assert sum(state.outbox.resent_pieces for state in states) > 20
    assert sum(state.inbox.duplicates for state in states) > 5


def one_channel() -> LinkState:
    state = LinkState(0.0, 120.0)
    state.channel_up(0.0, 1)
    assert state.pull(0.0, 1) == Frame(FrameKind.PING, sequence=1)
    return state


def test_urgent_goes_first_and_large_segments_are_shared_between_channels() -> None:
    state = one_channel()
    state.channel_up(0.0, 2)
    state.outbox.send(Segment(0, 0, 0, 100_000, 0, bytes(100_000)))
    state.outbox.send(Segment(1, 0, URGENT, 3, 0, b"now"))
    first, second = state.pull(0.0, 1), state.pull(0.0, 1)
    assert first is not None
    assert second is not None
    assert (first.connection, second.connection, second.offset) == (1, 0, 0)
    state.pull(0.0, 2)
    third = state.pull(0.0, 2)
    assert third is not None
    assert (third.sequence, third.offset) == (0, len(second.payload))


def test_a_channel_whose_own_ping_is_not_answered_brings_no_late_piece_of_others() -> None:
    state = one_channel()
    state.channel_up(0.0, 2)
    state.outbox.send(Segment(0, 0, 0, 3, 0, b"abc"))
    frames = [state.pull(0.1, channel) for channel in (2, 1)]
    assert [frame and frame.kind for frame in frames] == [FrameKind.PING, FrameKind.SEGMENT]
    state.receive(0.2, 1, Frame(FrameKind.PONG, sequence=1))
    assert state.pull(9.0, 2) is None
    state.receive(9.0, 2, Frame(FrameKind.PONG, sequence=1))
    frames = [state.pull(9.1, 2), state.pull(9.1, 2)]
    assert [frame and frame.kind for frame in frames] == [FrameKind.PING, FrameKind.SEGMENT]


def test_a_pong_frees_the_ledger_so_that_the_channel_may_die() -> None:
    state = one_channel()
    state.outbox.send(Segment(0, 0, 0, 3, 0, b"abc"))
    assert state.pull(0.1, 1) is not None
    state.receive(0.2, 1, Frame(FrameKind.PONG, sequence=1))
    assert state.pull(1.5, 1) == Frame(FrameKind.PING, sequence=2)
    state.receive(1.6, 1, Frame(FrameKind.PONG, sequence=2))
    state.channel_down(1.7, 1)
    assert state.outbox.resent_pieces == 0
    assert state.rtt_s == pytest.approx(0.1)


def test_a_rejected_segment_is_taken_again_only_as_a_newer_attempt() -> None:
    inbox = Inbox()
    wrong = Frame(FrameKind.SEGMENT, 0, 0, 0, 0, 3, 0, 0, 3, b"bad")
    assert inbox.receive(wrong) is not None
    assert inbox.reject(0, 0) == 0
    assert inbox.receive(wrong) is None
    right = inbox.receive(Frame(FrameKind.SEGMENT, 0, 0, 0, 1, 3, 0, 0, 3, b"yes"))
    assert right is not None
    assert right.payload == b"yes"
    assert inbox.rejections() == {}
    assert inbox.reject(0, 0) == 1


def test_acknowledging_what_is_rejected_is_our_own_fault() -> None:
    inbox = Inbox()
    for sequence in range(2):
        inbox.receive(Frame(FrameKind.SEGMENT, 0, sequence))
    inbox.reject(0, 0)
    with pytest.raises(LocalProtocolError, match="rejected"):
        inbox.acknowledge(0, 1)


@pytest.mark.parametrize("kind", [FrameKind.ACK, FrameKind.REJECT])
def test_speaking_of_a_segment_never_sent_breaks_the_protocol(kind: FrameKind) -> None:
    state = one_channel()
    state.outbox.send(Segment(0, 0, 0, 1, 0, b"a"))
    with pytest.raises(RemoteProtocolError, match="never sent"):
        state.receive(0.0, 1, Frame(kind, 0, 1))


@pytest.mark.parametrize("kind", [FrameKind.HELLO, FrameKind.WELCOME, FrameKind.REFUSE])
def test_a_greeting_after_the_greeting_breaks_the_protocol(kind: FrameKind) -> None:
    with pytest.raises(RemoteProtocolError, match="greeting"):
        one_channel().receive(0.0, 1, Frame(kind))


def test_a_pong_without_a_ping_and_a_flood_of_pings_break_the_protocol() -> None:
    state = one_channel()
    with pytest.raises(RemoteProtocolError):
        state.receive(0.0, 1, Frame(FrameKind.PONG, sequence=9))
    for number in range(PONGS_MAX):
        state.receive(0.0, 1, Frame(FrameKind.PING, sequence=number))
    with pytest.raises(RemoteProtocolError):
        state.receive(0.0, 1, Frame(FrameKind.PING, sequence=PONGS_MAX))


def test_sequences_far_ahead_are_refused_at_the_limit() -> None:
    inbox = Inbox()
    assert inbox.receive(Frame(FrameKind.SEGMENT, 0, AHEAD_MAX - 1)) is not None
    with pytest.raises(LimitExceededError):
        inbox.receive(Frame(FrameKind.SEGMENT, 0, AHEAD_MAX))


def test_incomplete_segments_are_refused_at_the_limit() -> None:
    inbox = Inbox()
    for sequence in range(PARTIAL_BYTES_MAX // PAYLOAD_BYTES_MAX):
        inbox.receive(Frame(FrameKind.SEGMENT, 0, sequence, total=PAYLOAD_BYTES_MAX, payload=b"x"))
    assert inbox.partial_bytes == PARTIAL_BYTES_MAX
    with pytest.raises(LimitExceededError):
        inbox.receive(Frame(FrameKind.SEGMENT, 1, 0, total=2, payload=b"x"))


def test_a_segment_in_too_many_runs_is_refused() -> None:
    inbox = Inbox()
    for number in range(RUNS_MAX):
        inbox.receive(Frame(FrameKind.SEGMENT, 0, 0, offset=2 * number, total=5000, payload=b"x"))
    with pytest.raises(LimitExceededError, match="runs"):
        inbox.receive(Frame(FrameKind.SEGMENT, 0, 0, offset=2 * RUNS_MAX, total=5000, payload=b"x"))


def test_pieces_that_disagree_about_their_segment_are_refused() -> None:
    inbox = Inbox()
    inbox.receive(Frame(FrameKind.SEGMENT, 0, 0, raw_size=5, total=5, payload=b"x"))
    with pytest.raises(RemoteProtocolError, match="disagree"):
        inbox.receive(Frame(FrameKind.SEGMENT, 0, 0, raw_size=6, offset=1, total=5, payload=b"x"))


def test_a_channel_without_an_answer_is_dead_after_the_limit_and_not_before() -> None:
    state = one_channel()
    clock = [0.0]

    def verdict_at(now: float) -> list[object]:
        while clock[0] < now:
            clock[0] = min(now, clock[0] + 0.5)
            result = state.tick(clock[0])
        return list(result)

    assert verdict_at(STALLED_S) == []
    assert verdict_at(STALLED_S + 0.1) == [ChannelDead(1)]


def test_bytes_that_the_peers_kernel_takes_keep_a_slow_channel_alive() -> None:
    state = one_channel()
    for tenth in range(100):
        state.progress(tenth / 10, 1, tenth)
        assert state.tick(tenth / 10) == []


def test_time_in_which_this_process_was_stopped_kills_no_channel() -> None:
    state = one_channel()
    assert state.tick(60.0) == []
    state.receive(60.1, 1, Frame(FrameKind.PONG, sequence=1))
    assert state.tick(60.2) == []


def test_a_link_without_channels_fails_after_its_limit_and_not_before() -> None:
    state = LinkState(0.0, 10.0)
    for now in range(11):
        assert state.tick(float(now)) == []
    (failed,) = state.tick(10.5)
    assert isinstance(failed, LinkFailed)
    assert isinstance(failed.error, LinkLostError)


def test_a_new_channel_ends_the_loss_and_says_how_long_it_was() -> None:
    state = one_channel()
    assert state.channel_down(5.0, 1) is True
    assert state.lost_since == 5.0
    assert state.channel_up(7.5, 2) == 2.5
    assert (state.channels_lost, state.link_losses) == (1, 1)


def test_a_new_channel_begins_with_all_acknowledgements() -> None:
    state = one_channel()
    for sequence in range(3):
        state.receive(0.0, 1, Frame(FrameKind.SEGMENT, 0, sequence))
    state.acknowledge(0, 2)
    assert state.pull(0.1, 1) == Frame(FrameKind.ACK, 0, 2)
    assert state.pull(0.1, 1) is None
    state.channel_up(0.2, 2)
    assert state.pull(0.2, 2) == Frame(FrameKind.ACK, 0, 2)


def test_a_retired_channel_ends_without_a_loss() -> None:
    one, other = LinkState(0.0, 120.0), LinkState(0.0, 120.0)
    for state in (one, other):
        state.channel_up(0.0, 1)
        state.channel_up(0.0, 2)
    one.outbox.send(Segment(0, 0, 0, 3, 0, b"abc"))
    one.pull(0.0, 1)
    assert one.pull(0.0, 1) is not None
    one.retire(1)
    assert one.pull(0.0, 1) == Frame(FrameKind.RETIRE)
    other.pull(0.0, 1)
    assert other.receive(0.1, 1, Frame(FrameKind.RETIRE)) is None
    assert other.pull(0.1, 1) == Frame(FrameKind.RETIRE)
    assert one.receive(0.2, 1, Frame(FrameKind.RETIRE)) == Retired()
    for state in (one, other):
        state.channel_down(0.3, 1, in_order=True)
        assert (state.channels_lost, state.outbox.resent_pieces) == (0, 0)


def test_channels_that_end_with_the_link_are_not_lost() -> None:
    state = LinkState(0.0, 120.0)
    for channel in (1, 2):
        state.channel_up(0.0, channel)
    state.channel_down(1.0, 1)
    state.close()
    assert state.channel_down(2.0, 2)
    assert (state.channels_lost, state.link_losses) == (1, 0)


def test_close_says_every_acknowledgement_first_on_every_channel() -> None:
    state = one_channel()
    state.receive(0.0, 1, Frame(FrameKind.SEGMENT, 0, 0))
    state.acknowledge(0, 0)
    state.close()
    state.channel_up(0.1, 2)
    for channel in (1, 2):
        said = []
        while (frame := state.pull(0.1, channel)) is not None:
            said.append(frame)
        assert said[-2:] == [Frame(FrameKind.ACK, 0, 0), close_frame(Code.DONE)]
    assert state.close_sent


def test_nothing_is_left_to_send_once_every_channel_has_said_close() -> None:
    state = one_channel()
    state.channel_up(0.0, 2)
    state.receive(0.0, 1, Frame(FrameKind.SEGMENT, 0, 0))
    state.acknowledge(0, 0)
    state.close()
    assert state.has_work(0.1)
    for channel in (1, 2):
        while state.pull(0.1, channel) is not None:
            pass
    state.channel_down(0.2, 2, in_order=True)  # the peer hangs up on one after the other
    assert not state.has_work(0.2)
    state.channel_up(0.3, 3)
    assert state.has_work(0.3)
    assert state.pull(0.3, 3) == Frame(FrameKind.ACK, 0, 0)


def test_a_close_with_segments_unacknowledged_is_no_orderly_end() -> None:
    state = one_channel()
    assert state.receive(0.0, 1, close_frame(Code.DONE)) == Closed(None)
    state.outbox.send(Segment(0, 0, 0, 1, 0, b"a"))
    closed = state.receive(0.0, 1, close_frame(Code.DONE))
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, LinkLostError)
    state.close()
    assert state._close is not None
    assert state._close.raw_size == Code.ABORTED


def test_a_channel_that_retires_is_in_use_no_more_and_says_so() -> None:
    state = LinkState(0.0, 120.0)
    for channel in (1, 2, 3):
        state.channel_up(0.0, channel)
    state.retire(3)
    assert state.in_use == [1, 2]
    said = {}
    for channel in (1, 2, 3):
        while (frame := state.pull(0.0, channel)) is not None:
            said[channel] = frame.kind  # the last one; a ping comes first
    assert said == {1: FrameKind.PING, 2: FrameKind.PING, 3: FrameKind.RETIRE}
