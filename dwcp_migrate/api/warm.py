"""Answers of the control API about warm-ups: a guest's pages brought to a peer's page store ahead of its migration.

GET  /v1/warm                                      WarmUpList   those that run, and the last that ended; newest first
POST /v1/warm?domain=D&peer=P&bytes_per_s=R&for_s=S   WarmUp    begin one: one pass, or passes for S seconds
POST /v1/warm/end?id=I                             WarmUp       end it; what was brought stays there

A warm-up is no migration: it is in no history, no totals and no forecast, and the agent forgets it when it ends itself.
"""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

WARM_S_MAX: Final = 24 * 3600.0
"""Longest time for which a warm-up repeats its passes."""

SETTLED_SHARE: Final = 0.02
"""Of its pages a pass brought no more than that for the first time: the peer has the guest as it is."""

SHRINKS_BY: Final = 0.2
"""A pass that brings this much less than the one before is followed by another. Where passes no longer shrink the guest
writes as fast as they follow it, and its migration gains nothing by one more."""

WarmState = Literal["running", "waiting", "ended", "failed"]


class WarmUp(msgspec.Struct, frozen=True, kw_only=True):
    """One warm-up.

    Attributes:
        state: `waiting` while a migration runs at either host, or there is no room for it.
        detail: why it waits, or why it ended early.
        readable_bytes: of the guest's memory that it can read.
        passes: over all of them that are done.
        pages: that were carried, zero pages not among them.
        known_pages: of these, that the peer had already.
        raw_bytes: of pages that were carried.
        wire_bytes: that they took on the link.
        bytes_per_s_max: on the wire, as commanded; 0 is no limit of its own.
        until: when it ends, seconds since the epoch; 0: after one pass.
        error: why it failed, `hint` what to do about it.
    """

    id: str
    domain: str
    uuid: str
    peer: str
    started_at: float
    state: WarmState = "running"
    detail: str = ""
    ended_at: float = 0.0
    readable_bytes: int = 0
    passes: int = 0
    pages: int = 0
    known_pages: int = 0
    raw_bytes: int = 0
    wire_bytes: int = 0
    bytes_per_s_max: float = 0.0
    until: float = 0.0
    error: str = ""
    hint: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ("ended", "failed")


class WarmUpList(msgspec.Struct, frozen=True, kw_only=True):
    """All that the agent knows of."""

    warm_ups: list[WarmUp]


@dataclass(slots=True)
class WarmGrowth:
    """Judge of whether a guest's migration still gains by further passes; told of its warm-up again and again.

    Attributes:
        passes: that were seen to end.
        pages: that these carried; `new_pages` of them were not there before.
        brought: new pages of the last pass; -1 before there was one.
    """

    passes: int = 0
    pages: int = 0
    new_pages: int = 0
    brought: int = -1

    def is_settled(self, one: WarmUp) -> bool:
        """Whether what is there no longer grows.

        Args:
            one: the warm-up as it is now. Between two passes is a pause, so that its counters are those of whole
                passes where it is looked at more often than that.
        """
        if one.passes == self.passes:
            return False
        new, pages, before = one.pages - one.known_pages - self.new_pages, one.pages - self.pages, self.brought
        self.passes, self.new_pages, self.pages, self.brought = one.passes, self.new_pages + new, one.pages, new
        return new <= SETTLED_SHARE * pages or (before >= 0 and new > (1 - SHRINKS_BY) * before)
