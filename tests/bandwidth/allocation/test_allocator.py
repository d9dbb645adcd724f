import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.frame import Options
from bench.links.simulation import Link, Moving, in_order
from bench.suites import pba_sharing
from dwcp_migrate.bandwidth.allocation.allocator import (
    CONVERGENCE_MARGIN,
    DEMANDS_MAX,
    TRICKLE_SHARE,
    Demand,
    Grant,
    LinkCapacity,
    allocate_rates,
)
from dwcp_migrate.bandwidth.allocation.ordering import PASSES_MAX, OrderedJob, late, order
from dwcp_migrate.bandwidth.prediction.precopy_model import Fluid

LINK = LinkCapacity(forecast_bytes_per_s=100.0, headroom_share=0.0)

demands = st.lists(
    st.builds(
        Demand,
        identity=st.uuids().map(str),
        weight=st.floats(0.1, 10),
        remaining_bytes=st.floats(0, 1e6),
        dirty_bytes_per_s=st.floats(0, 200),
        rate_bytes_per_s_max=st.one_of(st.just(math.inf), st.floats(0, 200)),
        deadline_s=st.one_of(st.none(), st.floats(-10, 1e4)),
        is_switching=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda demand: demand.identity,
)
capacities = st.builds(
    LinkCapacity,
    forecast_bytes_per_s=st.floats(0, 1e3),
    speed_bytes_per_s=st.one_of(st.just(math.inf), st.floats(0, 1e3)),
    headroom_share=st.floats(0, 1),
    reserved_bytes_per_s=st.floats(0, 100),
)


def by_identity(grants: list[Grant]) -> dict[str, Grant]:
    return {grant.identity: grant for grant in grants}


@given(capacities, demands, st.integers(1, 8))
def test_no_grant_exceeds_what_there_is_and_nobody_starves(
    capacity: LinkCapacity, wanted: list[Demand], running_max: int
) -> None:
    grants = allocate_rates(capacity, wanted, running_max=running_max)
    available = capacity.available_bytes_per_s
    assert [grant.identity for grant in grants] == [demand.identity for demand in wanted]
    assert sum(grant.rate_bytes_per_s for grant in grants) <= available * (1 + 1e-9)
    for grant, demand in zip(grants, wanted, strict=True):
        assert grant.rate_bytes_per_s <= demand.rate_bytes_per_s_max * (1 + 1e-9)
        trickle = available * TRICKLE_SHARE / len(wanted)
        assert grant.rate_bytes_per_s >= min(trickle, demand.rate_bytes_per_s_max) * (1 - 1e-9)


@given(capacities, demands, st.integers(1, 8))
def test_nothing_is_left_while_somebody_could_use_it(
    capacity: LinkCapacity, wanted: list[Demand], running_max: int
) -> None:
    grants = allocate_rates(capacity, wanted, running_max=running_max)
    could_use = sum(demand.rate_bytes_per_s_max for demand in wanted)
    granted = sum(grant.rate_bytes_per_s for grant in grants)
    assert granted == pytest.approx(min(capacity.available_bytes_per_s, could_use) if wanted else 0.0)


def test_headroom_storage_and_the_interface_are_respected() -> None:
    capacity = LinkCapacity(
        forecast_bytes_per_s=200.0, speed_bytes_per_s=100.0, headroom_share=0.2, reserved_bytes_per_s=30.0
    )
    assert allocate_rates(capacity, [Demand(identity="a", remaining_bytes=1)])[0].rate_bytes_per_s == pytest.approx(50)
    nothing = LinkCapacity(forecast_bytes_per_s=10.0, reserved_bytes_per_s=30.0)
    assert allocate_rates(nothing, [Demand(identity="a", remaining_bytes=1)])[0].rate_bytes_per_s == 0


def test_those_that_run_share_by_weight() -> None:
    two = [Demand(identity="a", remaining_bytes=1e4, weight=3), Demand(identity="b", remaining_bytes=1e4)]
    grants = by_identity(allocate_rates(LINK, two, running_max=2))
    assert grants["a"].rate_bytes_per_s == pytest.approx(2.5 + 95 * 0.75)
    assert grants["b"].rate_bytes_per_s == pytest.approx(2.5 + 95 * 0.25)
    assert {grant.reason for grant in grants.values()} == {"share"}


def test_what_one_cannot_use_the_others_get() -> None:
    two = [
        Demand(identity="a", remaining_bytes=1e4, rate_bytes_per_s_max=10),
        Demand(identity="b", remaining_bytes=1e5),
    ]
    grants = by_identity(allocate_rates(LINK, two))
    assert grants["a"].rate_bytes_per_s == pytest.approx(10)
    assert grants["b"].rate_bytes_per_s == pytest.approx(90)


def test_the_shortest_runs_and_the_others_are_queued() -> None:
    three = [Demand(identity=name, remaining_bytes=size) for name, size in (("a", 900), ("b", 100), ("c", 500))]
    grants = by_identity(allocate_rates(LINK, three))
    assert grants["b"].reason == "share"
    assert {grants["a"].reason, grants["c"].reason} == {"queued"}


def test_a_paused_guest_comes_before_everything() -> None:
    two = [
        Demand(identity="a", remaining_bytes=1e6, deadline_s=100),
        Demand(identity="b", remaining_bytes=1e6, is_switching=True),
    ]
    grants = by_identity(allocate_rates(LINK, two))
    assert grants["b"].reason == "switchover"
    assert grants["b"].rate_bytes_per_s > 95


def test_a_deadline_that_the_order_cannot_keep_gets_its_rate() -> None:
    """Two jobs of 60 s for the link, both due in 100 s: the second would end after 120 s."""
    two = [Demand(identity=name, remaining_bytes=6000, deadline_s=due) for name, due in (("a", 100.0), ("b", 110.0))]
    grants = by_identity(allocate_rates(LINK, two))
    assert grants["b"].reason == "deadline"
    assert grants["b"].is_met is False or grants["b"].rate_bytes_per_s >= 1.1 * 6000 / 110 * 0.99


def test_a_deadline_that_has_passed_gets_what_there_is_and_says_that_it_is_not_met() -> None:
    (grant,) = allocate_rates(LINK, [Demand(identity="a", remaining_bytes=1e6, deadline_s=-1)])
    assert grant.rate_bytes_per_s == pytest.approx(100)
    assert not grant.is_met


def test_a_guest_that_would_not_converge_at_its_share_gets_what_it_needs() -> None:
    two = [
        Demand(identity="busy", remaining_bytes=1000, dirty_bytes_per_s=50),
        Demand(identity="idle", remaining_bytes=1000),
    ]
    grants = by_identity(allocate_rates(LINK, two, running_max=2))
    assert grants["busy"].reason == "convergence"
    assert grants["busy"].rate_bytes_per_s >= 50 * CONVERGENCE_MARGIN
    assert grants["idle"].rate_bytes_per_s > 5


def test_a_need_that_no_share_could_meet_takes_nothing_from_the_others() -> None:
    two = [
        Demand(identity="hopeless", remaining_bytes=1000, dirty_bytes_per_s=500),
        Demand(identity="idle", remaining_bytes=1000),
    ]
    grants = by_identity(allocate_rates(LINK, two, running_max=2))
    assert grants["hopeless"].rate_bytes_per_s == pytest.approx(grants["idle"].rate_bytes_per_s)


def test_who_comes_first_is_judged_by_the_median_and_what_is_granted_by_the_low_quantile() -> None:
    """At 95 bytes/s all is over within 80 s and the deadline can wait, at 57 it could not."""
    two = [
        Demand(identity="short", remaining_bytes=1600),
        Demand(identity="dated", remaining_bytes=6000, deadline_s=100.0),
    ]
    low = LinkCapacity(forecast_bytes_per_s=60.0, headroom_share=0.0)
    assert by_identity(allocate_rates(low, two))["dated"].rate_bytes_per_s > 50
    both = LinkCapacity(forecast_bytes_per_s=60.0, headroom_share=0.0, median_bytes_per_s=100.0)
    grants = by_identity(allocate_rates(both, two))
    assert grants["short"].rate_bytes_per_s > 50
    assert sum(grant.rate_bytes_per_s for grant in grants.values()) <= 60 * (1 + 1e-9)


def test_the_median_leaves_the_same_to_others_as_the_low_quantile() -> None:
    capacity = LinkCapacity(
        forecast_bytes_per_s=80.0,
        median_bytes_per_s=100.0,
        speed_bytes_per_s=90.0,
        headroom_share=0.5,
        reserved_bytes_per_s=5.0,
    )
    assert (capacity.available_bytes_per_s, capacity.expected_bytes_per_s) == (35.0, 40.0)
    assert LinkCapacity(forecast_bytes_per_s=80.0).expected_bytes_per_s == 72.0


@pytest.mark.parametrize(
    ("is_first", "margin", "first"), [(False, 1.2, "short"), (True, 1.2, "dated"), (True, 1.4, "short")]
)
def test_one_that_has_the_link_for_its_deadline_keeps_it_longer_than_it_would_get_it(
    is_first: bool,  # noqa: FBT001 - a parameter of the test
    margin: float,
    first: str,
) -> None:
    two = [
        Demand(identity="short", remaining_bytes=1900),
        Demand(identity="dated", remaining_bytes=7600, deadline_s=100 * margin, is_first=is_first),
    ]
    assert by_identity(allocate_rates(LINK, two))[first].rate_bytes_per_s > 90


def test_as_many_migrations_as_allowed_share_a_link_and_one_more_is_refused() -> None:
    many = [Demand(identity=str(number), remaining_bytes=1.0 + number) for number in range(DEMANDS_MAX)]
    assert len(allocate_rates(LINK, many)) == DEMANDS_MAX
    with pytest.raises(ValueError, match="at most"):
        allocate_rates(LINK, [*many, Demand(identity="one more", remaining_bytes=1)])


@pytest.mark.parametrize(
    "wrong",
    [
        [Demand(identity="a", remaining_bytes=1), Demand(identity="a", remaining_bytes=2)],
        [Demand(identity="a", remaining_bytes=1, weight=0)],
    ],
)
def test_what_makes_no_sense_is_refused(wrong: list[Demand]) -> None:
    with pytest.raises(ValueError, match=r"twice|positive"):
        allocate_rates(LINK, wrong)


jobs = st.lists(st.tuples(st.integers(1, 50), st.one_of(st.none(), st.integers(1, 200))), min_size=1, max_size=5).map(
    lambda pairs: [OrderedJob(str(n), float(size), due and float(due)) for n, (size, due) in enumerate(pairs)]
)


def total(sequence: tuple[OrderedJob, ...]) -> float:
    ends = itertools.accumulate(job.duration_s(1.0) for job in sequence)
    return sum(ends)


@given(jobs)
def test_the_order_is_the_best_of_those_that_keep_every_deadline(queue: list[OrderedJob]) -> None:
    ordered = order(queue, 1.0)
    by_name = {job.identity: job for job in queue}
    keeping = [
        sequence
        for sequence in itertools.permutations(queue)
        if not late(queue, [job.identity for job in sequence], 1.0)
    ]
    if keeping:
        assert not late(queue, ordered, 1.0)
        assert total(tuple(by_name[name] for name in ordered)) == min(map(total, keeping))
    assert sorted(ordered) == sorted(by_name)


@pytest.mark.parametrize(
    ("dirty", "working_set"), [(0.0, 20e6), (3e6, 20e6), (12e6, 20e6), (12e6, 200e6), (40e6, 60e6)]
)
def test_a_migration_s_duration_is_that_of_its_passes(dirty: float, working_set: float) -> None:
    """40 MB/s over a link of 25 never end by themselves; for the order they are the longest, and no more than that."""
    said = OrderedJob("a", 400e6, dirty_bytes_per_s=dirty, working_set_bytes=working_set).duration_s(25e6)
    if dirty < 25e6:
        link = Link(in_order(["a"], 25e6), [Moving("a", Fluid(400e6, dirty, working_set))])
        link.run()
        assert said == pytest.approx(link.now, rel=0.05)
    assert said <= 400 / 25 + PASSES_MAX * working_set / 25e6 + 1e-9


def test_a_burst_of_writing_does_not_make_a_short_migration_the_last() -> None:
    bursting = OrderedJob("a", 60.0, dirty_bytes_per_s=1e3, working_set_bytes=1.0)
    assert order([bursting, OrderedJob("b", 280.0)], 20.0) == ["a", "b"]
    assert order([OrderedJob("a", 60.0, dirty_bytes_per_s=1e3), OrderedJob("b", 280.0)], 20.0) == [
        "b",
        "a",
    ]  # nothing bounds it


def test_an_order_for_a_link_that_carries_nothing_is_still_one() -> None:
    assert sorted(order([OrderedJob("a", 1), OrderedJob("b", 2)], 0.0)) == ["a", "b"]


def test_four_migrations_end_within_five_percent_of_the_best_order_and_the_deadline_is_kept() -> None:
    ours, best = pba_sharing.allocated(), pba_sharing.best()
    assert ours.is_kept
    assert ours.rate_min > 0
    assert ours.total_s <= 1.05 * best.total_s
    assert ours.last_s <= 1.05 * best.last_s


def test_the_deadline_of_the_four_is_not_kept_by_itself() -> None:
    names = [name for name, *_ in sorted(pba_sharing.FOUR, key=lambda one: one[1])]
    place = names.index(pba_sharing.DATED)
    shortest_first = sum(
        first / pba_sharing.RATE for _, first, *_ in sorted(pba_sharing.FOUR, key=lambda one: one[1])[: place + 1]
    )
    assert shortest_first > pba_sharing.DEADLINE_S - 5


def test_a_fleet_never_reserves_more_than_there_is() -> None:
    figures = {row.metric: row.value for row in pba_sharing.fleet_rows(Options(quick=True))}
    assert figures["migrations"] > 50
    assert figures["reservations_above_capacity"] == 0
