"""What the suite `restarts` plans to do; doing it is tested in tests/e2e."""

from bench.suites.restarts.run import DOWN_S, RestartTally, _rows, plan
from bench.suites.soak import FLAGS, STREAM_BYTES


def test_a_plan_follows_from_the_seed_and_the_number_alone() -> None:
    plans = [plan(1, number) for number in range(50)]
    assert plans == [plan(1, number) for number in range(50)]
    assert plans != [plan(2, number) for number in range(50)]


def test_plans_keep_to_their_bounds_and_use_everything() -> None:
    plans = [plan(7, number) for number in range(300)]
    assert {planned.flags for planned in plans} == set(FLAGS)
    assert {planned.restart.side for planned in plans} == {"source", "destination"}
    assert {planned.restart.way for planned in plans} == {"kill", "stop"}
    assert all(1 <= planned.restart.at_bytes < STREAM_BYTES for planned in plans)
    assert all(DOWN_S[0] <= planned.restart.down_s <= DOWN_S[1] for planned in plans)


def test_a_leak_is_a_row_of_its_own() -> None:
    rows = {row.metric: row.value for row in _rows("seed=1", RestartTally(leaks={"hv1 python": (5, 6)}))}
    assert rows["leaked: hv1 python"] == 1
