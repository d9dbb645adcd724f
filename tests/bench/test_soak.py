"""What the soak plans to do; doing it is tested in tests/e2e."""

from itertools import pairwise

from bench.suites.soak import CUT_S, FLAGS, STREAM_BYTES, SoakTally, _rows, plan


def test_a_plan_follows_from_the_seed_and_the_number_alone() -> None:
    plans = [plan(1, number) for number in range(50)]
    assert plans == [plan(1, number) for number in range(50)]
    assert plans != [plan(2, number) for number in range(50)]
    assert len(set(plans)) == 50


def test_plans_keep_to_their_bounds_and_use_everything() -> None:
    plans = [plan(7, number) for number in range(300)]
    drawn = [disturbance for planned in plans for disturbance in planned.disturbances]
    assert {planned.flags for planned in plans} == set(FLAGS)
    assert {disturbance.kind for disturbance in drawn} == {"kill", "cut"}
    assert all(CUT_S[0] <= disturbance.seconds <= CUT_S[1] for disturbance in drawn)
    assert all(0 <= disturbance.at_bytes < STREAM_BYTES for disturbance in drawn)
    for planned in plans:
        assert all(first.at_bytes <= second.at_bytes for first, second in pairwise(planned.disturbances))


def test_a_leak_is_a_row_of_its_own() -> None:
    tally = SoakTally(leaks={"hv1 agent descriptors": (16, 19)})
    rows = {row.metric: row.value for row in _rows("seed=1", tally)}
    assert rows["leaked: hv1 agent descriptors"] == 3
    assert rows["leaks (descriptors, threads, processes, nft rules, mounts)"] == 1
