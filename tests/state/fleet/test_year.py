"""A fleet's year, in small: what commands look at and what is kept does not grow with what is gone."""

from tests.state.fleet.year import Year

HOSTS, GUESTS = 40, 2500
LOOKED_AT_MAX = 5.0
"""Rows for a command on the average: the busiest look through the open tickets, or the shares of links."""
HELD_MAX = 40
"""Leases or shares at a time: of 20 that the fleet takes of each on a day none lives longer than an hour."""


def test_in_a_year_of_comings_and_goings_nothing_grows_with_what_is_gone() -> None:
    year = Year(1, HOSTS, GUESTS)
    year.play()
    first, *_, last = year.quarters
    assert year.commands["ForgetHost"] > HOSTS / 5
    assert year.commands["ForgetDomain"] > GUESTS
    assert year.commands["Resume"] > 3 * GUESTS
    for quarter in year.quarters:
        rows = quarter["rows"]
        assert rows["domains"] == GUESTS
        assert rows["hosts"] <= HOSTS + 10  # those that died in the last week
        assert rows["outcomes"] <= rows["hosts"]
        assert max(rows["leases"], rows["reservations"], rows["open_tickets"]) <= HELD_MAX
        assert quarter["rows looked at per command"] <= LOOKED_AT_MAX
    assert last["bytes"] <= 1.1 * first["bytes"]
