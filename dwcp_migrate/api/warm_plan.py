"""A plan whose guests are warmed up before they move: what is to be done next, and until when its moves wait (pure).

The rule: each agent reads the plans that are kept and warms up the guests that run on its own host, one at a time and
in the plan's order; it writes what came of each into the record. Nobody carries such a plan out before its time, so
that nobody holds the lease and other plans go on. A warm-up that is refused keeps nothing back.

    begins_at is not reached, and a guest has no outcome yet, or the plan `waits`   ──> the moves wait
    else                                                                            ──> whoever is due carries it out
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from dwcp_migrate.api.plans import GuestWarmth, PlanRecord, WarmMove
from dwcp_migrate.units import KIB

WARM_MOVES_MAX: Final = 128
"""Guests of one plan that are warmed up: their record has no room for more. The others move as they always did."""

WARM_BYTES_MAX: Final = 24 * KIB
"""Their bytes in the record, a quarter of it: the outcomes and what happens later need the rest."""

WARM_WORDS_MAX: Final = 120
"""Characters of the reason why a guest was not warmed up."""

REFRESH_S: Final = 1800.0
"""A guest of a plan that waits for its time is warmed up again after so long: it has written meanwhile, and what
refused it may not do so any more."""

UNHEARD: Final = "its host does not know of this plan: the fleet keeps no shared state"


def warm_moves(moves: Iterable[WarmMove]) -> list[WarmMove]:
    """Return as many of a plan's moves as one record has room for, the first ones.

    Args:
        moves: in the plan's order; of a guest that moves by way of another host the last destination counts.
    """
    kept: dict[str, WarmMove] = {}
    room = WARM_BYTES_MAX
    for one in moves:
        first = kept.get(one.domain)
        room -= len(msgspec.json.encode(one))
        if room < 0 or (first is None and len(kept) >= WARM_MOVES_MAX):
            break
        kept[one.domain] = one if first is None else replace(first, destination=one.destination)
    return list(kept.values())


def pending_moves(record: PlanRecord) -> list[WarmMove]:
    """The guests of a plan whose warm-up has no outcome yet, in the plan's order."""
    order = record.request.warm_first
    return [one for one in order.moves if one.domain not in record.warmed] if order else []


def has_to_wait(record: PlanRecord, now: float) -> bool:
    """Whether a plan's moves must not begin yet.

    Args:
        record: of the plan. One that was begun is never held back again, one that is paused is not held back by this.
        now: seconds since the epoch.
    """
    order = record.request.warm_first
    if order is None or record.state != "waiting" or record.wish != "run" or now >= order.begins_at:
        return False
    return order.waits or bool(pending_moves(record))


def next_move(record: PlanRecord, own: str, now: float) -> WarmMove | None:
    """The guest that a host is to warm up now, if any.

    Args:
        record: of the plan.
        own: the host's name.
        now: seconds since the epoch.
    """
    order = record.request.warm_first
    if order is None or not has_to_wait(record, now):
        return None
    first = next((one for one in pending_moves(record) if one.source == own), None)
    if first is not None or not order.waits:
        return first
    old = [one for one in order.moves if one.source == own and _is_stale(record.warmed.get(one.domain), now)]
    return min(old, key=lambda one: record.warmed[one.domain].at, default=None)


def _is_stale(found: GuestWarmth | None, now: float) -> bool:
    return found is not None and now >= found.at + REFRESH_S


def unheard_moves(record: PlanRecord, own: str) -> list[WarmMove]:
    """The guests that nobody warms up where a host keeps its plans for itself: those of other hosts.

    Args:
        record: of the plan.
        own: that host.
    """
    return [one for one in pending_moves(record) if one.source != own]


def with_outcomes(record: PlanRecord, outcomes: Mapping[str, GuestWarmth]) -> PlanRecord:
    """Note outcomes of warm-ups.

    Args:
        record: of the plan; one that has ended stays as it is.
        outcomes: by the domains' names; their words are cut to `WARM_WORDS_MAX` characters.
    """
    if not record.is_open:
        return record
    short = {name: replace(one, words=one.words[:WARM_WORDS_MAX]) for name, one in outcomes.items()}
    return replace(record, warmed=record.warmed | short)


def wanted_hosts(record: PlanRecord) -> dict[str, str]:
    """The destinations that a plan keeps to where it can, by domain."""
    order = record.request.warm_first
    return {one.domain: one.destination for one in order.moves} if order else {}
