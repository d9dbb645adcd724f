"""A channel's signs of life: when it is dead, what it answers, how much one pull may take."""

import pytest

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.transport.core.channel_health import (
    PING_S,
    PONGS_MAX,
    QUANTUM_BYTES_MAX,
    QUANTUM_BYTES_MIN,
    QUANTUM_S,
    RATE_S,
    STALLED_S,
    ChannelHealth,
)


def test_silence_is_death_only_past_its_limit_and_only_while_an_answer_is_due() -> None:
    health = ChannelHealth(0.0)
    health.ping(1.0, mark=0)
    assert not health.is_dead(1.0 + STALLED_S)
    assert health.is_dead(1.0 + STALLED_S + 0.01)
    health.pong(1.5, 1)
    assert not health.is_dead(1.0 + PING_S + STALLED_S)  # nothing was due before the next ping
    assert health.is_dead(1.0 + PING_S + STALLED_S + 0.01)  # which could not even be sent


def test_a_byte_that_comes_or_that_the_peers_kernel_took_is_life() -> None:
    health = ChannelHealth(0.0)
    health.ping(0.0, mark=0)
    health.received(2.0)
    assert not health.is_dead(2.0 + STALLED_S)
    health.delivered(4.0, 100)
    assert not health.is_dead(4.0 + STALLED_S)
    health.delivered(6.0, 100)  # the same count: nothing moved
    assert health.is_dead(4.0 + STALLED_S + 0.01)


def test_time_in_which_this_process_did_not_run_proves_nothing() -> None:
    health = ChannelHealth(0.0)
    health.ping(0.0, mark=0)
    health.received(0.0)
    health.shift(10.0)
    assert not health.is_dead(10.0 + STALLED_S)
    assert health.is_dead(10.0 + STALLED_S + 0.01)


def test_one_ping_is_under_way_and_the_next_is_due_a_second_after_it() -> None:
    health = ChannelHealth(0.0)
    assert health.is_ping_due(0.0)
    assert health.ping(0.0, mark=7) == 1
    assert not health.is_ping_due(5.0)
    assert health.pong(0.25, 1) == 7
    assert health.rtt_s == 0.25
    assert not health.is_ping_due(PING_S - 0.01)
    assert health.is_ping_due(PING_S)


@pytest.mark.parametrize("number", [0, 2])
def test_an_answer_to_no_ping_of_ours_is_refused(number: int) -> None:
    health = ChannelHealth(0.0)
    with pytest.raises(RemoteProtocolError, match="answers no ping"):
        health.pong(0.0, 1)
    health.ping(0.0, mark=0)
    with pytest.raises(RemoteProtocolError, match="answers no ping"):
        health.pong(0.1, number)


def test_so_many_pings_wait_for_their_answers_and_not_one_more() -> None:
    health = ChannelHealth(0.0)
    for number in range(PONGS_MAX):
        health.asked(number)
    with pytest.raises(RemoteProtocolError, match="more pings"):
        health.asked(PONGS_MAX)
    assert [health.answer() for _ in range(PONGS_MAX + 1)] == [*range(PONGS_MAX), None]
    health.asked(PONGS_MAX)  # there is room again


@pytest.mark.parametrize(
    ("bytes_per_s", "quantum"),
    [(0.0, QUANTUM_BYTES_MIN), (5e6, int(5e6 * QUANTUM_S)), (1e9, QUANTUM_BYTES_MAX)],
)
def test_a_pull_takes_what_the_channel_carries_in_its_time_within_bounds(bytes_per_s: float, quantum: int) -> None:
    health = ChannelHealth(0.0)
    start = health.quantum(0.0)
    health.took(int(bytes_per_s * RATE_S))
    assert health.quantum(RATE_S - 0.01) == start
    assert health.quantum(RATE_S) == quantum
