"""Carrier of plans: the helper process of one agent, or of the next one after that agent's death.

The rule: no agent plans or waits for migrations in its own process. The helper holds the fleet's lease while it works
and dies with its agent; libvirt's migrations go on without either. The agent that was asked begins; where its lease has
run out another agent takes the plan up, the first in the order of names, or a later one if that does not. A plan whose
moves wait for warm-ups, or for a time, is nobody's until then: later plans go first.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dwcp_migrate.agent.plans.book import PlanBook, PlanStanding
from dwcp_migrate.agent.plans.look_loop import keep_looking
from dwcp_migrate.api.plans import PlanRecord
from dwcp_migrate.api.warm_plan import has_to_wait
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.logs import get_logger
from dwcp_migrate.tasks import wait_within

LOOK_S: Final = 2.0
"""Between two looks at the plans; a new one is seen at once."""

TAKE_OVER_S: Final = 15.0
"""Pause after the lease ran out before another agent takes a plan up: the first one may be starting again."""

RANK_S: Final = 10.0
"""Delay of each further agent that may take a plan up."""

RETRY_S: Final = (2.0, 5.0, 15.0, 60.0)
"""Before a helper that failed is started again."""

FAREWELL_S: Final = 5.0
"""Time that the helper has to end when its agent does."""

log = get_logger(component="plans")


def due(standing: PlanStanding, own: str, now: float) -> PlanRecord | None:
    """The plan that this host is to carry out now, if any.

    Args:
        standing: of plans and lease.
        own: this host's name.
        now: by this host's clock, seconds since the epoch: the fleet's stands still where nothing happens.
    """
    first = next((one.record for one in standing.plans if _wants_carrier(one.record, now)), None)
    if first is None or standing.holder not in {"", own}:
        return None
    chosen = first.carrier or first.by
    if chosen == own:
        return first
    others = [name for name in standing.hosts if name != chosen]
    rank = others.index(own) if own in others else len(others)
    order = first.request.warm_first
    waited_until = order.begins_at if order is not None and order.begins_at <= now else 0.0
    free_since = max(standing.free_since, waited_until)
    return first if standing.now >= free_since + TAKE_OVER_S + rank * RANK_S else None


def _wants_carrier(record: PlanRecord, now: float) -> bool:
    """Whether something is to be done: a paused plan waits, unless it is to end, and one that has a time for that."""
    is_paused = record.state == "paused" and record.wish == "pause"
    return record.is_open and not is_paused and not has_to_wait(record, now)


class PlanCarrier:
    """Starts the helper.

    Args:
        book: the plans.
        config: the file that the helper reads.
        command: how it is started, its plan's number follows.
        state: of the agent: one that stops begins nothing.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        book: PlanBook,
        config: Path,
        state: Callable[[], str],
        command: Sequence[str] | None = None,
        clock: Callable[[], float] = wall_clock,
    ) -> None:
        self._book, self._state, self._clock = book, state, clock
        self._command = command or (sys.executable, "-m", "dwcp_migrate", "carry", "--config", str(config))
        self._process: asyncio.subprocess.Process | None = None
        self._failures = 0
        self._not_before = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        await keep_looking("plans", self._look, self._pause)

    async def _pause(self) -> None:
        self._book.changed.clear()
        with contextlib.suppress(TimeoutError):
            await wait_within(self._book.changed.wait(), LOOK_S)

    async def _look(self) -> None:
        if self._state() != "running" or steady_clock() < self._not_before:
            return
        record = due(await self._book.standing(), self._book.name, self._clock())
        if record is not None:
            await self._carry(record)

    async def _carry(self, record: PlanRecord) -> None:
        """Run the helper to its end."""
        log.info("plan carried out", plan=record.id, goal=record.request.goal.purpose, host=record.request.goal.host)
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command, str(record.id), stdin=asyncio.subprocess.DEVNULL
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await self._end(process)
            raise
        finally:
            self._process = None
        if code == 0:
            self._failures = 0
            return
        wait_s = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        self._not_before = steady_clock() + wait_s
        log.warning("plan's helper ended", plan=record.id, code=code, again_in_s=wait_s)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            try:
                await wait_within(process.wait(), FAREWELL_S)
            except TimeoutError:
                process.kill()
                await process.wait()
