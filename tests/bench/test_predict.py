"""What the suite `predict` draws, and what it makes of predictions; the migrations themselves want a lab."""

from bench.suites import predict
from bench.suites.predict import HOPELESS_S, Tally, group
from dwcp_migrate.api.migration import ExpectedMigration, Migration
from dwcp_migrate.api.schema import Predicted
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.units import MIB

ONE = (1.0, 1.0, 1.0)


def said(low: float, median: float, high: float, convergence: float = 1.0) -> Predicted:
    expected = ExpectedMigration(
        time_s=(low, median, high),
        downtime_s=(0.1, 0.2, 0.3),
        wire_bytes=(50.0, 100.0, 150.0),
        convergence=convergence,
        way="precopy",
        model_time_s=median,
        model_downtime_s=0.2,
    )
    return Predicted(
        domain="guest",
        peer="hv2",
        expected=expected,
        reason="",
        memory_bytes=0,
        dirty_bytes_per_s=ONE,
        link_bytes_per_s=ONE,
        link_known=True,
        rtt_s=0.1,
    )


def took(seconds: float, *, wire_bytes: int = 80) -> Migration:
    return Migration(
        id="ab" * 16,
        role="source",
        state="ended",
        result="completed",
        peer="hv2",
        address="10.0.0.2",
        port=49152,
        started_at=100.0,
        ended_at=100.0 + seconds,
        downtime_ms=250,
        counters=MigrationCounters(wire_bytes=wire_bytes),
    )


def test_a_group_follows_from_seed_and_number() -> None:
    assert group(1, 2) == group(1, 2)
    assert group(1, 2) != group(2, 2)


def test_every_fourth_guest_writes_more_than_its_link_carries_and_the_others_arrive_in_time() -> None:
    for number in range(40):
        drawn = group(7, number)
        fills_s = drawn.guest.fill_mib * MIB / drawn.link.rate_bytes_per_s
        if number % 4 == 3:
            assert drawn.guest.dirty_pages_per_s * 4096 > 10 * drawn.link.rate_bytes_per_s
        else:
            assert 0.5 * fills_s < HOPELESS_S  # half is what such memory comes to on the wire


def test_errors_and_intervals_are_counted_of_those_that_arrive() -> None:
    tally = Tally()
    predict._count(tally, said(8, 10, 12), took(12.5), arrived=True)
    predict._count(tally, said(8, 10, 12), took(10), arrived=True)
    predict._count(tally, said(8, 10, 12, convergence=0.1), took(HOPELESS_S), arrived=False)
    predict._count(tally, said(8, 10, 12), took(HOPELESS_S), arrived=False)
    rows = {row.metric: (row.value, row.n) for row in predict._rows("case", tally)}
    assert rows["median_error_percent"] == (10.0, 2)
    assert rows["p90_error_percent"] == (20.0, 2)
    assert rows["interval_coverage_percent"] == (50.0, 2)
    assert rows["convergence_right_percent"] == (75.0, 4)
    assert rows["median_wire_bytes_error_percent"] == (25.0, 2)
    assert rows["median_downtime_error"] == (50.0, 2)
