"""Tasks are held until they are done, waited for, and ended."""

import asyncio
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import dwcp_migrate
from dwcp_migrate.tasks import ONCE, Tasks, faults, wait_within


async def test_drained_waits_for_all_those_begun_meanwhile_included() -> None:
    tasks, done = Tasks(), []

    async def second() -> None:
        await asyncio.sleep(0)
        done.append("second")

    async def first() -> None:
        await asyncio.sleep(0)
        tasks.begin(second())
        done.append("first")

    tasks.begin(first())
    assert tasks.count == 1
    await tasks.drained()
    assert (tasks.count, done) == (0, ["first", "second"])


async def test_one_that_fails_says_so_with_its_trace_and_costs_nobody_else() -> None:
    async def fail() -> None:
        raise ValueError("a bug")

    tasks = Tasks()
    with capture_logs() as said:
        tasks.begin(fail())
        await tasks.drained()
        await asyncio.sleep(0)
    (line,) = said
    assert line["event"] == "a task failed"
    assert "fail" in line["task"]
    assert isinstance(line["exc_info"], ValueError)
    assert tasks.count == 0


async def test_cancelled_tasks_have_ended_when_it_returns() -> None:
    tasks, ended = Tasks(), []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    tasks.begin(forever())
    tasks.begin(forever())
    await asyncio.sleep(0)
    await tasks.cancel()
    assert (tasks.count, ended) == (0, [True, True])


async def test_a_task_that_raised_does_not_keep_the_others_from_being_ended() -> None:
    tasks = Tasks()

    async def failing() -> None:
        raise ValueError

    tasks.begin(failing())
    tasks.begin(asyncio.Event().wait())
    await tasks.cancel()
    assert tasks.count == 0


async def test_what_a_task_took_over_is_closed_when_it_is_cancelled_before_it_ran() -> None:
    ours, theirs = socket.socketpair()
    tasks = Tasks()
    tasks.begin(asyncio.sleep(60), ours)
    await tasks.cancel()
    assert theirs.recv(1) == b""
    theirs.close()


async def test_loop_that_raises_is_logged_counted_and_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwcp_migrate.tasks.RESTART_S", 0.0)
    faults.clear()
    tasks, ran, again = Tasks(), [], asyncio.Event()

    async def work() -> None:
        ran.append(True)
        if len(ran) == 1:
            raise KeyError("nobody foresaw this")
        again.set()
        await asyncio.Event().wait()

    with capture_logs() as said:
        tasks.keep_running("tick", work)
        await again.wait()
    assert (len(ran), faults["tick"], tasks.count) == (2, 1, 1)
    assert [(line["event"], line["part"]) for line in said] == [("a part of the agent failed and begins anew", "tick")]
    await tasks.cancel()
    assert tasks.count == 0


async def test_loop_that_returns_is_not_begun_anew() -> None:
    tasks, ran = Tasks(), []

    async def work() -> None:
        ran.append(True)

    tasks.keep_running("heartbeat", work)
    await tasks.drained()
    assert ran == [True]


async def test_failure_of_a_task_that_runs_once_is_counted() -> None:
    async def fail() -> None:
        raise ValueError("a bug")

    faults.clear()
    tasks = Tasks()
    tasks.begin(fail())
    await tasks.drained()
    await asyncio.sleep(0)
    assert faults[ONCE] == 1


async def test_a_cancellation_that_comes_together_with_what_is_waited_for_is_not_lost() -> None:
    happened = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await wait_within(happened, 60.0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    happened.set_result(None)
    task.cancel()
    await asyncio.wait([task], timeout=10.0)
    assert task.cancelled()


async def test_what_takes_too_long_is_cancelled_and_what_comes_in_time_is_returned() -> None:
    never = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await wait_within(never, 0.01)
    assert never.cancelled()
    assert await wait_within(asyncio.sleep(0, "done"), 60.0) == "done"


def test_no_module_waits_by_what_loses_cancellations() -> None:
    sources = Path(dwcp_migrate.__file__).parent.rglob("*.py")
    assert [str(path) for path in sources if "asyncio.wait_for(" in path.read_text()] == []
