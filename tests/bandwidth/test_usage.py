"""What a migration can use of its link, from what it used."""

from dwcp_migrate.bandwidth.usage import BUSY_MIN, LOOKS, ROOM, Usage

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


def test_who_is_gone_is_forgotten() -> None:
    usage = Usage()
    for identity in ("one", "two"):
        for _ in range(LOOKS):
            usage.saw(identity, 1e6, IDLE)
    usage.keep({"two"})
    assert usage.most("one") == float("inf")
    assert usage.most("two") == ROOM * 1e6
