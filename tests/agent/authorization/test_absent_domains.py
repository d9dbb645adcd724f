"""Absent domains are asked for at once, then ever more rarely, a few at a time."""

from itertools import pairwise

from dwcp_migrate.agent.authorization.absent_domains import AT_ONCE_MAX, FIRST_S, PAUSE_S_MAX, AbsentDomains


def test_a_domain_is_asked_for_at_once_and_then_ever_more_rarely() -> None:
    absent = AbsentDomains()
    asked = [second for second in range(86_400) if absent.to_ask(["vm"], float(second))]
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert (asked[0], pauses[:3]) == (0, [FIRST_S, 2 * FIRST_S, 4 * FIRST_S])
    assert max(pauses) == PAUSE_S_MAX
    assert len(asked) < 60  # a day's, of 17,280 looks


def test_one_that_came_back_is_forgotten_and_asked_for_at_once_when_it_goes_again() -> None:
    absent = AbsentDomains()
    for second in range(100):
        absent.to_ask(["vm"], float(second))
    assert absent.to_ask([], 100.0) == []
    assert len(absent) == 0
    assert absent.to_ask(["vm"], 101.0) == ["vm"]


def test_of_many_all_have_their_turn() -> None:
    absent = AbsentDomains()
    names = [f"vm{number}" for number in range(3 * AT_ONCE_MAX)]
    asked = [absent.to_ask(names, float(look)) for look in range(3)]
    assert [len(some) for some in asked] == [AT_ONCE_MAX] * 3
    assert sorted(name for some in asked for name in some) == sorted(names)
