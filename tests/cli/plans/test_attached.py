"""A terminal attached to a plan that agents carry out: what it says, Ctrl-C, and how it ends."""

import os
import signal
from collections.abc import Callable

import msgspec
import pytest

from dwcp_migrate.api.plans import GuestWarmth, PlanRecord, PlanRequest, StoredPlan, WarmFirst, WarmMove
from dwcp_migrate.api.warm_plan import with_outcomes
from dwcp_migrate.cli.plans import attached
from dwcp_migrate.cli.plans.attached import follow, last_word
from dwcp_migrate.cli.plans.plan import plan_words
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.errors import CoordinationError, UnfinishedError
from dwcp_migrate.orchestration import plan_progress as progress
from dwcp_migrate.orchestration.plan_store import change_plan
from dwcp_migrate.placement.plan import Goal, Step, Unfinished
from tests.orchestration.plan_shelf import PlanShelf

STEP = Step(number=0, domain="vm1", source="hv1", destination="hv2")


class Watched(PlanShelf):
    """A shelf on which something happens each time that somebody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.happens: list[object] = []

    def all(self) -> list[StoredPlan]:
        if self.happens:
            one = self.happens.pop(0)
            if isinstance(one, BaseException):
                raise one
            assert callable(one)
            one()
        return super().all()


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(attached, "POLL_S", 0.01)
    made = Watched()
    made.put(PlanRecord(request=PlanRequest(goal=Goal(purpose="drain", host="hv1")), by="hv1"), 0)
    return made


def does(shelf: Watched, change: Callable[[PlanRecord], PlanRecord]) -> Callable[[], StoredPlan]:
    """Something that changes the plan."""
    return lambda: PlanShelf.put(shelf, change(shelf.record()), shelf.plans[1].revision)


def test_what_happens_is_said_once_and_the_plan_s_end_ends_the_command(
    shelf: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.happens = [
        does(shelf, lambda one: progress.taken(one, "hv1", 1.0)),
        does(shelf, lambda one: progress.begun(one, STEP, 2.0)),
        CoordinationError("no majority"),
        does(shelf, lambda one: progress.finished(one, STEP, "", 0, 3.0)),
        does(shelf, lambda one: progress.ended(one, [], 4.0, is_stopped=False)),
    ]
    assert last_word(follow(shelf, 1, as_json=False)) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["an agent carries it out", "vm1: hv1 -> hv2", "vm1: runs on hv2; 0 to go"]
    assert said.err.count("the plan goes on with whichever agent carries it out") == 1


def test_what_is_left_is_named_and_the_exit_code_is_the_plan_s(
    shelf: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    left = [Unfinished(domain="vm2", host="hv1", why="it uses a device of the host")]
    shelf.happens = [does(shelf, lambda one: progress.ended(one, left, 4.0, is_stopped=False))]
    assert last_word(follow(shelf, 1, as_json=False)) == 13
    assert "vm2 stays on hv1: it uses a device of the host" in capsys.readouterr().err


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_pauses_and_a_second_one_ends_the_command_and_says_what_runs_on(
    shelf: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.happens = [
        does(shelf, lambda one: progress.begun(progress.taken(one, "hv1", 1.0), STEP, 2.0)),
        press,
        lambda: None,
        lambda: None,
        press,
    ]
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(UnfinishedError, match="left plan 1, which is paused") as caught:
        follow(shelf, 1, as_json=False)
    assert "running on: vm1: hv1 -> hv2" in str(caught.value)
    assert "plan resume 1" in caught.value.hint
    assert shelf.record().wish == "pause"
    assert "once more ends this command" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_plan_that_is_paused_ends_the_command_with_how_to_go_on(
    shelf: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    change_plan(shelf, 1, lambda one: progress.wished(one, "pause", 1000.0))
    shelf.happens = [does(shelf, lambda one: progress.ended(one, [], 4.0, is_stopped=True))]
    assert last_word(follow(shelf, 1, as_json=False)) == UnfinishedError.exit_code
    assert "`dwcp-migrate plan resume 1` goes on" in capsys.readouterr().err


def test_who_only_looks_leaves_the_plan_alone(shelf: Watched) -> None:
    shelf.happens = [press]
    with pytest.raises(UnfinishedError, match="goes on at hv1"):
        follow(shelf, 1, as_json=False, pauses=False)
    assert shelf.record().wish == "run"


def test_a_plan_is_shown_with_what_failed_and_why(shelf: Watched) -> None:
    record = progress.finished(progress.begun(shelf.record(), STEP, 1.0), STEP, "no such bridge", 2, 2.0)
    words = plan_words(msgspec.structs.replace(record, carrier="hv3", state="running"), 3.0)
    assert "plan 1: drain hv1, asked for at hv1" in words
    assert "running, carried out by hv3" in words
    assert "vm1: failed, no such bridge; 2 to go" in words


def waiting(shelf: Watched, *, waits: bool) -> None:
    """Have the plan wait for warm-ups, or for a time that is an hour away."""
    order = WarmFirst(begins_at=wall_clock() + 3600.0, waits=waits, moves=[WarmMove("vm1", "hv1", "hv2")])
    request = msgspec.structs.replace(shelf.record().request, warm_first=order)
    change_plan(shelf, 1, lambda one: msgspec.structs.replace(one, request=request))


def test_what_a_plan_waits_for_is_said_once_and_so_is_who_is_not_warmed_up(
    shelf: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting(shelf, waits=False)
    refused = GuestWarmth(at=1.0, words="hv2 refused: it has no page store")
    shelf.happens = [
        lambda: None,
        lambda: None,
        does(shelf, lambda one: with_outcomes(one, {"vm1": refused})),
        does(shelf, lambda one: progress.taken(one, "hv1", 1.0)),
        does(shelf, lambda one: progress.ended(one, [], 4.0, is_stopped=False)),
    ]
    assert last_word(follow(shelf, 1, as_json=False)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "warming 1 of 1",
        "vm1 is not warmed up: hv2 refused: it has no page store; it migrates without",
        "an agent carries it out",
    ]


def test_ctrl_c_leaves_a_plan_alone_that_waits_for_the_time_agreed_to(shelf: Watched) -> None:
    waiting(shelf, waits=True)
    shelf.happens = [press]
    with pytest.raises(
        UnfinishedError, match=r"left plan 1, which goes on at hv1 \(warming 1 of 1, waits until"
    ) as caught:
        follow(shelf, 1, as_json=False)
    assert "plan abort 1" in caught.value.hint
    assert (shelf.record().wish, shelf.record().state) == ("run", "waiting")


def test_ctrl_c_pauses_a_plan_that_waits_for_warm_ups_alone(shelf: Watched) -> None:
    waiting(shelf, waits=False)
    shelf.happens = [press]
    assert last_word(follow(shelf, 1, as_json=False)) == UnfinishedError.exit_code
    assert (shelf.record().wish, shelf.record().state) == ("pause", "paused")
