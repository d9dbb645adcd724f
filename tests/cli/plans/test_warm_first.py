"""Options of commands that warm guests up first, times to come, and what is said of plans that wait."""

import datetime as dt
import time
from collections.abc import Callable, Iterator

import click
import pytest
from msgspec.structs import replace

from dwcp_migrate.api.limits import LIMIT_BYTES_PER_S_MIN
from dwcp_migrate.api.plans import GuestWarmth, PlanList, PlanRecord, PlanRequest, StoredPlan, WarmFirst, WarmMove
from dwcp_migrate.api.warm import WARM_S_MAX
from dwcp_migrate.cli.plans import warm_first
from dwcp_migrate.cli.plans.warm_first import (
    AT_S_MAX,
    WARM_FOR_S,
    BeginTime,
    WarmWords,
    awaiting_words,
    order_of,
    take_warm_words,
    time_to_come,
)
from dwcp_migrate.errors import UnfinishedError
from dwcp_migrate.placement.plan import Figures, Goal, Plan, Step

Call = Callable[..., tuple[int, str, str]]
FIGURES = Figures(fullest=0.0, mean=0.0, deviation=0.0, broken=0)
MOVES = [WarmMove(f"vm{number}", "hv1", "hv2") for number in range(1, 5)]
WARM, COLD = GuestWarmth(at=1.0, is_warm=True), GuestWarmth(at=1.0, words="hv2 refused: it has no page store")


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


NOON = at("2026-11-30T12:00:00+01:00")


@pytest.mark.parametrize(("text", "found"), [
    ("22:00", "2026-11-30T22:00:00+01:00"), ("06:30", "2026-12-01T06:30:00+01:00"),
    ("6:30", "2026-12-01T06:30:00+01:00"), ("12:00", "2026-12-01T12:00:00+01:00"),
    ("2026-12-02T01:00", "2026-12-02T01:00:00+01:00"), ("2026-12-02T01:00Z", "2026-12-02T01:00:00+00:00"),
    ("2026-12-02", "2026-12-02T00:00:00+01:00"),
])  # fmt: skip
def test_a_time_of_the_day_is_the_next_one_and_a_date_is_local(text: str, found: str) -> None:
    assert time_to_come(text, NOON) == at(found)


def test_the_next_time_of_the_day_is_right_over_the_end_of_summer_time() -> None:
    assert time_to_come("03:30", at("2026-10-24T12:00:00+02:00")) == at("2026-10-25T03:30:00+01:00")


@pytest.mark.parametrize("text", ["soon", "25:00", "22:61", "", "22:00:00:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        time_to_come(text, NOON)


def test_a_time_must_be_to_come_and_within_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_first, "wall_clock", lambda: NOON)
    latest = dt.datetime.fromtimestamp(NOON + AT_S_MAX, dt.UTC)
    assert BeginTime().convert(latest.isoformat(), None, None) == NOON + AT_S_MAX
    for text, why in (
        ((latest + dt.timedelta(seconds=1)).isoformat(), "more than a week ahead"),
        ("2026-11-30T12:00", "is over"),
        ("whenever", "is no time"),
    ):
        with pytest.raises(click.BadParameter, match=why):
            BeginTime().convert(text, None, None)


def words(*, warm: bool = False, for_s: float | None = None, rate: float = 0.0, at: float | None = None) -> WarmWords:
    return take_warm_words({"warm": warm, "warm_for": for_s, "warm_rate": rate}, at=at)


def test_options_of_warm_ups_are_taken_within_their_limits() -> None:
    assert words() == WarmWords(warm=False, for_s=WARM_FOR_S, bytes_per_s=0.0)
    longest = words(warm=True, for_s=WARM_S_MAX, rate=LIMIT_BYTES_PER_S_MIN)
    assert longest == WarmWords(warm=True, for_s=WARM_S_MAX, bytes_per_s=LIMIT_BYTES_PER_S_MIN)
    assert words(at=5.0).warm
    with pytest.raises(click.UsageError, match="at most 24h"):
        words(warm=True, for_s=WARM_S_MAX + 1)
    with pytest.raises(click.UsageError, match="at least"):
        words(warm=True, rate=LIMIT_BYTES_PER_S_MIN - 1)
    with pytest.raises(click.UsageError, match="need --warm"):
        words(for_s=60.0)
    with pytest.raises(click.UsageError, match="exclude each other"):
        words(for_s=60.0, at=5.0)


def test_a_plan_is_told_its_guests_in_order_and_until_when_to_wait() -> None:
    steps = [
        Step(number=0, domain="vm2", source="hv1", destination="hv3"),
        Step(number=1, domain="vm1", source="hv1", destination="hv3"),
        Step(number=2, domain="vm1", source="hv3", destination="hv2"),
    ]
    plan = Plan(goal=Goal(purpose="drain", host="hv1"), steps=steps, before=FIGURES, after=FIGURES)
    moves = [WarmMove("vm2", "hv1", "hv3"), WarmMove("vm1", "hv1", "hv2")]
    told = order_of(WarmWords(warm=True, for_s=60.0, bytes_per_s=9e6), plan, None, 100.0)
    assert told == WarmFirst(begins_at=160.0, bytes_per_s=9e6, moves=moves)
    at_its_time = order_of(WarmWords(warm=True, for_s=60.0, bytes_per_s=0.0), plan, 500.0, 100.0)
    assert at_its_time == WarmFirst(begins_at=500.0, waits=True, moves=moves)
    assert order_of(WarmWords(warm=False, for_s=60.0, bytes_per_s=0.0), plan, None, 100.0) is None


def plan(*, waits: bool, begins_at: float = NOON + 36_000.0, **warmed: GuestWarmth) -> PlanRecord:
    order = WarmFirst(begins_at=begins_at, waits=waits, moves=MOVES)
    request = PlanRequest(goal=Goal(purpose="drain", host="hv1"), warm_first=order)
    return PlanRecord(request=request, id=7, by="hv1", warmed=warmed, asked_at=NOON)


def test_what_a_plan_waits_for_is_said_in_a_line() -> None:
    assert awaiting_words(plan(waits=False), NOON) == "warming 1 of 4"
    assert awaiting_words(plan(waits=False, vm1=WARM), NOON) == "warming 2 of 4"
    later = plan(waits=True, vm1=WARM, vm2=COLD)
    assert awaiting_words(later, NOON) == "warming 3 of 4, waits until 22:00, 1 not warmed up"
    warm = plan(waits=True, vm1=WARM, vm2=WARM, vm3=WARM, vm4=WARM)
    assert awaiting_words(warm, NOON) == "waits until 22:00"
    assert awaiting_words(warm, NOON - 86_400.0) == "waits until 2026-11-30 22:00"
    assert awaiting_words(warm, NOON + 36_000.0) == ""
    assert awaiting_words(replace(warm, state="running"), NOON) == ""
    assert awaiting_words(PlanRecord(request=PlanRequest(goal=Goal(purpose="rebalance"))), NOON) == ""


def test_plans_and_plan_show_say_what_a_plan_waits_for_and_who_is_not_warmed_up(agent: object, call: Call) -> None:
    record = plan(waits=False, begins_at=time.time() + 600.0, vm1=WARM, vm2=COLD)
    agent.more["/v1/plans"] = PlanList(plans=[StoredPlan(revision=1, record=record)])  # type: ignore[attr-defined]
    code, out, _ = call("plans")
    assert (code, "warming 3 of 4, 1 not warmed up" in out) == (0, True)
    code, out, _ = call("plan", "show", "7")
    assert code == 0
    assert out.splitlines()[1:] == [
        "waiting, carried out by nobody yet",
        "warming 3 of 4, 1 not warmed up",
        "0 moved, 0 to go",
        "vm2 is not warmed up: hv2 refused: it has no page store; it migrates without",
    ]


def test_a_plan_that_waits_is_aborted_at_once(agent: object, call: Call) -> None:
    stored = StoredPlan(revision=1, record=plan(waits=True, begins_at=time.time() + 600.0))
    agent.more |= {"/v1/plans": PlanList(plans=[stored]), "/v1/plans/put": stored}  # type: ignore[attr-defined]
    assert call("plan", "abort", "7")[0] == 0
    written = next(body for body in agent.bodies if body)  # type: ignore[attr-defined]
    assert b'"state":"aborted"' in written
    assert f'"exit_code":{UnfinishedError.exit_code}'.encode() in written


@pytest.mark.parametrize(("line", "why"), [
    (("drain", "hv1", "--at", "22:00", "--here"), "not with --here"),
    (("drain", "hv1", "--warm", "--exact", "5"), "not with --here or --exact"),
    (("drain", "--warm"), "need a HOST"),
    (("drain", "hv1", "--at", "yesterday"), "is no time"),
    (("migrate", "vm1", "hv2", "--warm-for", "2h"), "need --warm"),
])  # fmt: skip
def test_options_that_contradict_each_other_are_refused(call: Call, line: tuple[str, ...], why: str) -> None:
    code, _, err = call(*line)
    assert (code, why in err) == (2, True), err
