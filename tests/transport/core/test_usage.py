"""What a link's thread spends its time on, with a clock of the test's own."""

from dataclasses import dataclass

from dwcp_migrate.transport.core.usage import Leaves, LinkUsage


@dataclass
class Kernel:
    under_way_bytes: int
    busy_s: float
    receiver_limited_s: float


def test_time_goes_to_what_the_turn_before_left_behind() -> None:
    usage = LinkUsage(10.0)
    usage.turned(11.0, Leaves.BLOCKED)
    usage.turned(13.0, Leaves.BUSY)
    usage.turned(13.5, Leaves.NOTHING)
    assert [usage.spent_s(20.0, left) for left in (Leaves.BLOCKED, Leaves.BUSY, Leaves.NOTHING)] == [2.0, 0.5, 7.5]
    usage.turned(20.0, Leaves.BUSY)
    assert usage.spent_s(21.0, Leaves.BUSY) == 1.5


def test_the_share_of_time_without_room_at_the_peer_is_that_since_the_last_tick() -> None:
    usage = LinkUsage(0.0)
    usage.tick([Kernel(100, 2.0, 0.0), Kernel(50, 2.0, 0.0)])
    assert (usage.under_way_bytes, usage.receiver_limited) == (150, 0.0)
    usage.tick([Kernel(0, 3.0, 1.0), Kernel(7, 3.0, 0.5)])
    assert (usage.under_way_bytes, usage.receiver_limited) == (7, 0.75)


def test_a_channel_that_has_gone_makes_no_share_negative() -> None:
    usage = LinkUsage(0.0)
    usage.tick([Kernel(0, 2.0, 1.0), Kernel(0, 2.0, 1.0)])
    usage.tick([Kernel(0, 2.5, 1.0)])
    assert usage.receiver_limited == 0.0
