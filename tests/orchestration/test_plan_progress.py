"""A plan's record: its limits, its wishes, its end."""

import msgspec
import pytest

from dwcp_migrate.api import plans
from dwcp_migrate.api.plans import (
    EVENTS_MAX,
    PlanRecord,
    PlanRequest,
    WarmFirst,
    WarmMove,
    decode_record,
    encode_record,
)
from dwcp_migrate.api.warm_plan import has_to_wait
from dwcp_migrate.errors import PlacementError, UnfinishedError
from dwcp_migrate.orchestration import plan_progress as progress
from dwcp_migrate.placement.plan import Goal, Step, Unfinished

RECORD = PlanRecord(request=PlanRequest(goal=Goal(purpose="rebalance")), id=3, by="hv1")
STEP = Step(number=0, domain="vm1", source="hv1", destination="hv2")


def test_a_record_that_grows_loses_its_oldest_entries_and_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "RECORD_BYTES_MAX", 4096)
    large = msgspec.structs.replace(RECORD, moved={f"vm{number}": float(number) for number in range(500)})
    kept = decode_record(encode_record(large))
    assert kept.cut + len(kept.moved) == 500
    assert "vm499" in kept.moved
    assert "vm0" not in kept.moved
    exact = msgspec.structs.replace(RECORD, note="x" * (4096 - len(encode_record(RECORD)) - len('"note":"",')))
    assert len(encode_record(exact)) <= 4096
    with pytest.raises(PlacementError, match="more than 4096"):
        decode_record(b" " * 4097)


def test_what_is_asked_for_must_fit_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "RECORD_BYTES_MAX", 400)
    large = PlanRequest(goal=Goal(purpose="rebalance"), reached=[f"host{number}" for number in range(100)])
    with pytest.raises(PlacementError, match="more than 400"):
        encode_record(PlanRecord(request=large, moved={"vm1": 1.0}))


def test_events_are_numbered_and_the_oldest_make_room() -> None:
    record = RECORD
    for _ in range(EVENTS_MAX + 1):
        record = progress.noted(record, "begun", 1.0, STEP)
    assert (len(record.events), record.events[0].serial, record.events[-1].serial) == (EVENTS_MAX, 2, EVENTS_MAX + 1)


def test_what_has_ended_takes_no_wish() -> None:
    ended = progress.ended(RECORD, [], 5.0, is_stopped=False)
    assert ended.state == "completed"
    with pytest.raises(PlacementError, match="plan 3 has ended: completed"):
        progress.wished(ended, "pause", 1000.0)


def test_a_paused_plan_waits_for_its_carrier_once_it_is_resumed() -> None:
    paused = progress.ended(progress.wished(RECORD, "pause", 1000.0), [], 5.0, is_stopped=True)
    assert (paused.state, paused.ended_at) == ("paused", 0.0)
    assert progress.wished(paused, "run", 1000.0).state == "waiting"
    assert progress.wished(paused, "abort", 1000.0).state == "waiting"


def test_a_wish_for_a_plan_that_waits_for_its_time_takes_effect_without_a_carrier() -> None:
    order = WarmFirst(begins_at=2000.0, waits=True, moves=[WarmMove("vm1", "hv1", "hv2")])
    record = msgspec.structs.replace(RECORD, request=msgspec.structs.replace(RECORD.request, warm_first=order))
    paused = progress.wished(record, "pause", 1000.0)
    assert (paused.state, paused.wish, paused.ended_at) == ("paused", "pause", 0.0)
    resumed = progress.wished(paused, "run", 1100.0)
    assert (resumed.state, resumed.note) == ("waiting", "")
    assert has_to_wait(resumed, 1100.0)
    aborted = progress.wished(resumed, "abort", 1200.0)
    assert (aborted.state, aborted.ended_at, aborted.exit_code) == ("aborted", 1200.0, UnfinishedError.exit_code)
    due = progress.wished(record, "abort", 2000.0)
    assert (due.state, due.wish) == ("waiting", "abort"), "a carrier may have begun it"


def test_a_migration_that_failed_is_remembered_and_one_that_arrived_too() -> None:
    record = progress.begun(RECORD, STEP, 1.0)
    assert record.running == ["vm1: hv1 -> hv2"]
    failed = progress.finished(record, STEP, "no such bridge", 2, 2.0)
    assert (failed.running, failed.to_go) == ([], 2)
    assert progress.failures_of(failed)["vm1"][0].host == "hv2"
    done = progress.finished(record, STEP, "", 1, 2.0)
    assert done.moved == {"vm1": 2.0}
    assert progress.moved_since([done], 1.5) == {"vm1"}
    assert progress.moved_since([done], 2.0) == set()


def test_what_is_left_decides_the_exit_code() -> None:
    left = [Unfinished(domain="vm1", host="hv1", why="x" * 1000)]
    nothing = progress.ended(RECORD, left, 5.0, is_stopped=False)
    some = progress.ended(msgspec.structs.replace(RECORD, moved={"vm2": 1.0}), left, 5.0, is_stopped=False)
    assert (nothing.exit_code, some.exit_code) == (13, 14)
    assert len(nothing.left[0].why) == plans.WORDS_MAX
