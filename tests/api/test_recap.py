"""What a fleet saved: only what a record proves, each migration once, and bounded reasons."""

from typing import Any

import pytest

from dwcp_migrate.api.course import CoursePoint
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.recap import best_wire_rate, recap_of, saved_s, sum_recaps
from dwcp_migrate.protocol.control import Recalled, control_frames, decode_control, encode_control
from dwcp_migrate.protocol.recap import OTHERS, REASONS_MAX, MigrationRecap
from dwcp_migrate.protocol.worker import MigrationCounters
from tests.agent import records

COURSE = (CoursePoint(1.0, 100, 50), CoursePoint(2.0, 400, 150), CoursePoint(10.0, 1000, 550))


def ended(**changes: Any) -> Migration:
    fields: dict[str, Any] = {
        "state": "ended",
        "result": "completed",
        "ended_at": records.STARTED + 10,
        "downtime_ms": 100,
        "counters": MigrationCounters(raw_bytes=2000, wire_bytes=500),
        "course": COURSE,
    }
    return records.make_migration(**(fields | changes))


def test_time_saved_is_counted_at_the_best_rate_that_the_wire_showed() -> None:
    assert best_wire_rate(ended()) == 100.0
    assert saved_s(ended()) == 10.0  # 2000 bytes at 100 a second would take 20 s, it took 10
    assert saved_s(ended(course=())) is None
    assert saved_s(ended(passthrough_reason="unreachable")) is None
    assert saved_s(ended(counters=MigrationCounters(raw_bytes=10, wire_bytes=10))) == 0.0


def test_each_migration_counts_at_its_source_and_disks_do_not() -> None:
    found = recap_of(
        [
            ended(),
            ended(role="destination"),
            ended(kind="disk"),
            ended(passthrough_reason="unreachable"),
            ended(result="failed", reason="cancelled"),
            ended(ended_at=records.STARTED - 100),
        ],
        since=records.STARTED,
    )
    assert (found.completed, found.accelerated, found.failed) == (2, 1, 1)
    assert (found.raw_bytes, found.wire_bytes, found.saved_s, found.saved_known) == (2000, 500, 10.0, 1)
    assert (found.failures, found.unaccelerated) == ({"cancelled": 1}, {"unreachable": 1})
    assert found.oldest_at == records.STARTED - 100


@pytest.mark.parametrize(("low", "high", "inside"), [(9.0, 11.0, 1), (1.0, 9.0, 0)])
def test_predictions_are_scored_by_their_interval(low: float, high: float, inside: int) -> None:
    expected = records.make_expected(low, 8.0, high)
    found = recap_of([ended(expected=expected)], since=0)
    assert (found.predicted, found.inside, found.error) == (1, inside, 0.25)


def test_what_observed_migrations_would_have_saved_is_summed_up_apart() -> None:
    expected = records.make_expected(2.0, 4.0, 6.0)
    observed = ended(passthrough_reason="observe", expected=expected)
    found = recap_of([observed, ended(passthrough_reason="observe", expected=None)], since=0)
    assert (found.observed, found.observed_s, found.accelerated_s) == (1, 10.0, 4.0)
    assert (found.predicted, found.saved_known, found.unaccelerated) == (0, 0, {"observe": 2})


def test_reasons_are_bounded_so_that_the_answer_fits_into_a_message() -> None:
    many = [ended(result="failed", reason=f"{number:04} " + "x" * 500) for number in range(400)]
    found = recap_of(many, since=0)
    assert len(found.failures) == REASONS_MAX + 1
    assert sum(found.failures.values()) == 400
    assert OTHERS in found.failures
    (envelope,) = control_frames().feed(encode_control(1, Recalled(recap=found)))
    assert decode_control(envelope) == Recalled(recap=found)


def test_hosts_are_summed_up() -> None:
    total = sum_recaps(
        [
            MigrationRecap(oldest_at=5.0, completed=1, failures={"a": 1}, saved_s=1.5, saved_known=1),
            MigrationRecap(oldest_at=3.0, completed=2, failures={"a": 1, "b": 2}),
            MigrationRecap(),
        ]
    )
    assert (total.oldest_at, total.completed, total.failures, total.saved_s) == (3.0, 3, {"a": 2, "b": 2}, 1.5)
