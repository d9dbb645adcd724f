"""Warmer of plans: brings this host's guests that a kept plan names to their destinations' stores ahead of their moves.

The rule: one guest at a time, in the plan's order, and after a warm-up that an operator began. What is refused is noted
in words and keeps nothing back. Where the plan is begun, paused or aborted the warm-up ends; what it brought stays.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from dwcp_migrate.agent.migrations.warm_outgoing import OutgoingWarmUps
from dwcp_migrate.agent.plans.book import PlanBook
from dwcp_migrate.agent.plans.document import stale_record
from dwcp_migrate.agent.plans.look_loop import keep_looking
from dwcp_migrate.api.plans import GuestWarmth, PlanRecord, WarmMove
from dwcp_migrate.api.warm import WarmGrowth, WarmUp
from dwcp_migrate.api.warm_plan import UNHEARD, has_to_wait, next_move, unheard_moves, with_outcomes
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.errors import DwcpError, NotFoundError, StalePlanError
from dwcp_migrate.logs import get_logger

LOOK_S: Final = 2.0
"""Between two looks; shorter than the pause between two passes, of which each has to be seen."""

GUEST_S_MAX: Final = 1800.0
"""For one guest, so that one which never settles leaves time for the others."""

REFUSALS_MAX: Final = 5
"""Looks in a row at which a warm-up could not begin; libvirt may be back by then."""

NOTE_TRIES: Final = 8
"""Of an outcome that others' changes came before."""

log = get_logger(component="warm")


@dataclass(slots=True)
class _UnderWay:
    """The warm-up of a plan's guest that runs, by its id, and how it grows."""

    plan: int
    move: WarmMove
    warm_up: str
    growth: WarmGrowth = field(default_factory=WarmGrowth)


class PlanWarmer:
    """See the module.

    Args:
        book: the plans.
        warm_ups: from this host.
        clock: seconds since the epoch.
    """

    def __init__(self, book: PlanBook, warm_ups: OutgoingWarmUps, clock: Callable[[], float] = wall_clock) -> None:
        self._book, self._warm_ups, self._clock = book, warm_ups, clock
        self._under_way: _UnderWay | None = None
        self._refusals = 0

    async def run(self) -> None:
        """Look until cancelled."""
        await keep_looking("warm-ups of plans", self.look, partial(asyncio.sleep, LOOK_S))

    async def look(self) -> None:
        """Go on with the warm-up that runs, or begin the next one.

        Raises:
            DwcpError: the plans cannot be read, or not be written to; the next look does it.
        """
        records = [one.record for one in await self._book.all(fresh=False)]
        if not self._book.is_shared:
            await self._leave_to_nobody(records)
        if self._under_way is not None:
            await self._follow(self._under_way, records)
        else:
            await self._begin_next(records)

    async def _leave_to_nobody(self, records: list[PlanRecord]) -> None:
        """Note which guests nobody warms up, as no other agent reads this book."""
        now = self._clock()
        for record in records:
            if has_to_wait(record, now) and (alone := unheard_moves(record, self._book.name)):
                await self._note(record.id, {one.domain: GuestWarmth(at=now, words=UNHEARD) for one in alone})

    async def _follow(self, under_way: _UnderWay, records: list[PlanRecord]) -> None:
        """End the warm-up where its guest is warm or its plan waits no longer, and note its outcome."""
        record = next((one for one in records if one.id == under_way.plan), None)
        try:
            one = self._warm_ups.book.find(under_way.warm_up)
        except NotFoundError:
            self._under_way = None
            return
        now = self._clock()
        if record is None or not has_to_wait(record, now):
            self._warm_ups.end(one.id)
            self._under_way = None
            return
        if one.is_over or under_way.growth.is_settled(one):
            self._warm_ups.end(one.id)
            domain = under_way.move.domain
            await self._note(record.id, {domain: judge_outcome(one, record.warmed.get(domain), now)})
            self._under_way = None

    async def _begin_next(self, records: list[PlanRecord]) -> None:
        """Begin the warm-up that is next, if any; one that an operator began goes first."""
        now = self._clock()
        found = ((record, next_move(record, self._book.name, now)) for record in records)
        record, move = next((one for one in found if one[1] is not None), (None, None))
        if record is None or move is None or self._warm_ups.book.running():
            return
        order = record.request.warm_first
        assert order is not None, "it has a next move"
        for_s = min(order.begins_at - now, GUEST_S_MAX)
        try:
            one = await self._warm_ups.begin(move.domain, move.destination, order.bytes_per_s, for_s)
        except DwcpError as error:
            await self._refused(record, move, str(error))
            return
        self._refusals = 0
        self._under_way = _UnderWay(record.id, move, one.id)

    async def _refused(self, record: PlanRecord, move: WarmMove, why: str) -> None:
        """Note that a guest is not warmed up, where that was so for some looks and nobody's warm-up is in the way."""
        if self._warm_ups.book.running():
            return
        self._refusals += 1
        if self._refusals >= REFUSALS_MAX:
            log.info("guest not warmed up", plan=record.id, domain=move.domain, peer=move.destination, reason=why)
            await self._note(record.id, {move.domain: GuestWarmth(at=self._clock(), words=why)})
            self._refusals = 0

    async def _note(self, number: int, outcomes: Mapping[str, GuestWarmth]) -> None:
        """Write outcomes into a plan's record, also where others change it at the same time."""
        for _ in range(NOTE_TRIES):
            stored = next((one for one in await self._book.all() if one.record.id == number), None)
            if stored is None or (wanted := with_outcomes(stored.record, outcomes)) == stored.record:
                return
            with contextlib.suppress(StalePlanError):
                await self._book.put(wanted, stored.revision)
                return
        raise stale_record(f"plan {number}")


def judge_outcome(one: WarmUp, before: GuestWarmth | None, now: float) -> GuestWarmth:
    """Judge a warm-up that is settled or over.

    Args:
        one: the warm-up.
        before: of an earlier warm-up of this guest for the same plan, which holds where this one failed.
        now: seconds since the epoch.
    """
    was_warm = before is not None and before.is_warm
    if one.state == "failed":
        return GuestWarmth(at=now, is_warm=was_warm, words=one.error)
    if one.passes == 0 and one.pages == 0:
        return GuestWarmth(at=now, is_warm=was_warm, words=one.detail or "there was no time for it")
    return GuestWarmth(at=now, is_warm=True)
