"""What a migration can use of its link, from what it used."""

from dwcp_migrate.bandwidth.allocation.usage import BUSY_MIN, LOOKS, ROOM, USED_UP, Usage

IDLE = 0.1


def test_one_that_leaves_its_channels_idle_can_use_a_quarter_more_than_it_used() -> None:
    usage = Usage()
    for rate in (3e6, 5e6, 4e6):
        usage.saw("one", rate, IDLE)
    assert usage.most("one") == ROOM * 5e6


def test_too_few_looks_show_nothing() -> None:
    usage = Usage()
    assert usage.most("one") == float("inf")
    for _ in range(LOOKS - 1):
        usage.saw("one", 1e6, IDLE)
    assert usage.most("one") == float("inf")
    usage.saw("one", 1e6, IDLE)
    assert usage.most("one") < float("inf")


def test_one_that_waits_for_the_link_could_use_more() -> None:
    usage = Usage()
    for busy in (IDLE, BUSY_MIN, IDLE):
        usage.saw("one", 1e6, busy)
    assert usage.most("one") == float("inf")
    for _ in range(LOOKS - 1):
        usage.saw("one", 1e6, BUSY_MIN - 0.01)
    assert usage.most("one") == ROOM * 1e6


def test_one_that_uses_up_what_it_is_held_to_could_use_more_though_nothing_of_it_waits() -> None:
    """Its QEMU is not asked for more, so that it looks as if it had no more."""
    usage = Usage()
    for _ in range(LOOKS):
        usage.saw("one", 1e6, IDLE, held_bytes_per_s=1e6 / USED_UP)
    assert usage.most("one") == float("inf")


def test_one_that_leaves_some_of_what_it_is_held_to_stays_bound_by_what_it_used() -> None:
    usage = Usage()
    for _ in range(LOOKS):
        usage.saw("one", 1e6, IDLE)
    for _ in range(10):
        usage.saw("one", 1e6, IDLE, held_bytes_per_s=usage.most("one"))
        assert usage.most("one") == ROOM * 1e6


def test_who_is_gone_is_forgotten() -> None:
    usage = Usage()
    for identity in ("one", "two"):
        for _ in range(LOOKS):
            usage.saw(identity, 1e6, IDLE)
    usage.keep({"two"})
    assert usage.most("one") == float("inf")
    assert usage.most("two") == ROOM * 1e6
