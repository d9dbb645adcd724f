"""What the suites `pba` and `predict` measure follows from their options alone, and says what it is."""

from bench.frame import Options
from bench.suites import pba_cost, pba_sharing, predict


def test_overhead_says_how_often_it_forecasts_and_allocates() -> None:
    rows = {row.case: row for row in pba_cost.overhead_rows(Options(quick=True))}
    assert list(rows) == [
        "overhead/32/64",
        "overhead/32/64/allocating-each-sample",
        "overhead/32/64/forecasting-each-sample",
    ]
    least, _, most = rows.values()
    assert 0 < 3 * least.value < most.value
    assert "one step of the panel" in least.method


def test_four_migrations_are_as_soon_done_as_the_best_order_of_them_all() -> None:
    rows = {row.metric: row.value for row in pba_sharing.four_rows()}
    assert rows["deadline_kept"] == 1
    assert rows["total_over_best_percent"] < 5
    assert rows["least_rate"] > 0


def test_links_and_guests_follow_from_the_seed_and_every_fourth_guest_does_not_converge() -> None:
    groups = [predict.group(7, number) for number in range(8)]
    assert groups == [predict.group(7, number) for number in range(8)]
    assert groups != [predict.group(8, number) for number in range(8)]
    assert [group.taught for group in groups] == [2, 2, 2, 1] * 2
    assert all(group.link.rate_bytes_per_s == 2e6 for group in groups[3::4])
    assert len({(group.link, group.guest) for group in groups}) == len(groups)
