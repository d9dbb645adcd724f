"""The course of a migration in a record: bounded however long it takes, and spread over all of it."""

from itertools import pairwise

import msgspec

from dwcp_migrate.api.course import POINTS_MAX, STAGES, CoursePoint, in_order, with_last_point, with_point
from dwcp_migrate.api.migration import Migration, apply_counters, apply_finished
from dwcp_migrate.protocol.worker import Finished, MigrationCounters


def test_a_course_of_any_length_is_bounded_and_evenly_spread() -> None:
    course: tuple[CoursePoint, ...] = ()
    for number in range(1, 20_000):
        course = with_point(course, CoursePoint(number * 0.5))
        assert len(course) <= POINTS_MAX
    gaps = [after.at_s - before.at_s for before, after in pairwise(course)]
    assert len(course) >= POINTS_MAX // 2
    assert max(gaps) <= 4 * 20_000 * 0.5 / POINTS_MAX
    assert course[-1].at_s > 0.95 * 20_000 * 0.5


def test_the_last_point_is_the_end_also_where_one_was_taken_just_before() -> None:
    course = with_point((), CoursePoint(10.0, raw_bytes=1))
    course = with_point(course, CoursePoint(20.0, raw_bytes=2))
    assert [point.at_s for point in with_last_point(course, CoursePoint(20.01))] == [10.0, 20.01]
    assert [point.at_s for point in with_last_point(course, CoursePoint(25.0))] == [10.0, 20.0, 25.0]


def test_stages_keep_their_places_and_unknown_ones_are_left_out() -> None:
    waited = in_order({"link": 1.234, "of a newer release": 9.0})
    assert waited[STAGES.index("link")] == 1.23
    assert sum(waited) == 1.23
    assert in_order({}) == ()


def test_progress_and_the_end_of_a_migration_are_points_of_its_course() -> None:
    record = Migration(id="0" * 32, role="source", peer="b", address="10.0.0.2", port=49152, started_at=100.0)
    counters = MigrationCounters(raw_bytes=10, wire_bytes=5, channels=3, rtt_s=0.01, held_up_s={"link": 0.4})
    record = apply_counters(record, counters, 0.5, 100.5)
    record = apply_finished(record, Finished(result="carried", counters=MigrationCounters(raw_bytes=20)), 101.5)
    assert [(point.at_s, point.raw_bytes) for point in record.course] == [(0.5, 10), (1.5, 20)]
    assert record.course[0].channels == 3
    again = msgspec.json.decode(msgspec.json.encode(record), type=Migration)
    assert again == record
    assert len(msgspec.json.encode(record.course[0])) < 100
