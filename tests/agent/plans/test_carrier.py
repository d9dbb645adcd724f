"""Which agent carries a plan out, and its helper."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.agent.plans import carrier as carriers
from dwcp_migrate.agent.plans.book import PlanBook, PlanStanding
from dwcp_migrate.agent.plans.carrier import RANK_S, TAKE_OVER_S, PlanCarrier, due
from dwcp_migrate.api.plans import GuestWarmth, PlanRecord, PlanRequest, StoredPlan, WarmFirst, WarmMove
from dwcp_migrate.placement.plan import Goal

RECORD = PlanRecord(request=PlanRequest(goal=Goal(purpose="drain", host="b")), id=1, by="b")
NOW = 1001.0
STANDING = PlanStanding([StoredPlan(revision=1, record=RECORD)], "", 1000.0, 1001.0, ["a", "b", "c"])


def standing(**changes: object) -> PlanStanding:
    return msgspec.structs.replace(STANDING, **changes)


def record(**changes: object) -> list[StoredPlan]:
    return [StoredPlan(revision=1, record=msgspec.structs.replace(RECORD, **changes))]


def test_the_agent_that_was_asked_begins_at_once_and_nobody_else() -> None:
    assert [due(STANDING, name, NOW) is not None for name in "abc"] == [False, True, False]
    assert due(standing(plans=record(carrier="c", state="running")), "c", NOW) is not None
    assert due(standing(plans=record(carrier="c", state="running")), "b", NOW) is None


def test_where_the_lease_ran_out_the_first_of_the_others_takes_it_up_then_the_next() -> None:
    late = standing(now=1000.0 + TAKE_OVER_S)
    assert [due(late, name, NOW) is not None for name in "ac"] == [True, False]
    later = standing(now=1000.0 + TAKE_OVER_S + RANK_S)
    assert [due(later, name, NOW) is not None for name in "ac"] == [True, True]


def test_while_somebody_holds_the_lease_nobody_else_begins() -> None:
    held = standing(holder="c", now=9000.0)
    assert [due(held, name, NOW) is not None for name in "abc"] == [False, False, True]


@pytest.mark.parametrize(("state", "wish", "begins"), [
    ("paused", "pause", False), ("paused", "abort", True), ("waiting", "run", True), ("running", "pause", True),
    ("completed", "run", False), ("aborted", "abort", False),
])  # fmt: skip
def test_a_plan_that_is_paused_or_has_ended_waits_for_nobody(state: str, wish: str, begins: bool) -> None:  # noqa: FBT001
    assert (due(standing(plans=record(state=state, wish=wish)), "b", NOW) is not None) is begins


def test_the_first_of_several_plans_goes_first() -> None:
    second = msgspec.structs.replace(RECORD, id=2)
    two = [*record(state="paused", wish="pause"), StoredPlan(revision=1, record=second)]
    found = due(standing(plans=two), "b", NOW)
    assert found is not None
    assert found.id == 2


def waiting(begins_at: float, *, waits: bool) -> list[StoredPlan]:
    order = WarmFirst(begins_at=begins_at, waits=waits, moves=[WarmMove("vm1", "b", "c")])
    return record(request=msgspec.structs.replace(RECORD.request, warm_first=order))


@pytest.mark.parametrize("waits", [True, False])
def test_a_plan_that_waits_is_begun_at_its_time_by_the_agent_that_was_asked(*, waits: bool) -> None:
    plans = waiting(5000.0, waits=waits)
    assert [due(standing(plans=plans, now=4999.0), name, 4999.0) for name in "abc"] == [None] * 3
    begun = [due(standing(plans=plans, now=5000.0), name, 5000.0) is not None for name in "abc"]
    assert begun == [False, True, False]
    late = standing(plans=plans, now=5000.0 + TAKE_OVER_S)
    assert [due(late, name, 5000.0 + TAKE_OVER_S) is not None for name in "abc"] == [True, True, False]


def test_a_plan_whose_guests_are_all_warm_or_refused_begins_before_its_time_unless_it_waits() -> None:
    for waits in (True, False):
        (one,) = waiting(5000.0, waits=waits)
        outcome = {"vm1": GuestWarmth(at=1000.0, words="it has no page store")}
        done = [msgspec.structs.replace(one, record=msgspec.structs.replace(one.record, warmed=outcome))]
        assert (due(standing(plans=done), "b", NOW) is None) is waits


def test_a_plan_that_waits_lets_a_later_one_go_first() -> None:
    second = StoredPlan(revision=1, record=msgspec.structs.replace(RECORD, id=2))
    found = due(standing(plans=[*waiting(5000.0, waits=True), second]), "b", NOW)
    assert found is not None
    assert found.id == 2


def book_of(directory: Path) -> PlanBook:
    return PlanBook(None, lambda: False, directory, "b")  # type: ignore[arg-type]  # no fleet is asked


HELPER = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write(sys.argv[2] + '\\n'); sys.exit({code})"


async def ran(directory: Path, code: int, times: int) -> list[str]:
    """Have a helper that ends with a code started for a plan; the numbers that it was given."""
    book = book_of(directory)
    await book.put(msgspec.structs.replace(RECORD, id=0), 0)
    out = directory / "started"
    command = (sys.executable, "-c", HELPER.format(code=code), str(out))
    task = asyncio.create_task(PlanCarrier(book, directory / "agent.toml", lambda: "running", command).run())
    async with asyncio.timeout(60):  # it is another process: there is nothing here to await
        while not out.exists() or len(out.read_text().split()) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return out.read_text().split()


async def test_a_helper_is_started_for_the_plan_and_again_where_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriers, "RETRY_S", (0.05,))
    monkeypatch.setattr(carriers, "LOOK_S", 0.05)
    assert set(await ran(tmp_path, 1, 2)) == {"1"}


async def test_an_agent_that_ends_just_as_a_plan_changes_looks_no_more(tmp_path: Path) -> None:
    book = book_of(tmp_path)
    task = asyncio.create_task(PlanCarrier(book, tmp_path / "agent.toml", lambda: "running").run())
    while not book.changed._waiters:  # noqa: ASYNC110 - it waits for a change once it has looked
        await asyncio.sleep(0)
    book.changed.set()
    task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_an_agent_that_ends_tells_its_helper_to(tmp_path: Path) -> None:
    book = book_of(tmp_path)
    await book.put(msgspec.structs.replace(RECORD, id=0), 0)
    out = tmp_path / "ended"
    program = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(out)!r}).touch(), sys.exit(14)))\n"
        f"pathlib.Path({str(tmp_path / 'up')!r}).touch()\n"
        "time.sleep(60)"
    )
    carrier = PlanCarrier(book, tmp_path / "agent.toml", lambda: "running", (sys.executable, "-c", program))
    task = asyncio.create_task(carrier.run())
    async with asyncio.timeout(60):
        while not (tmp_path / "up").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert out.exists()


async def test_an_agent_that_drains_begins_nothing(tmp_path: Path) -> None:
    book = book_of(tmp_path)
    await book.put(msgspec.structs.replace(RECORD, id=0), 0)
    carrier = PlanCarrier(book, tmp_path / "agent.toml", lambda: "draining", (sys.executable, "-c", "raise SystemExit"))
    await carrier._look()
    assert carrier._process is None
