"""The decision that a migration goes past the pipeline from its start, because the link outruns that (pure).

Where both hosts allow it in clear, it is left to QEMU alone, whose connections then are not even caught (see
`left_alone`); else each of its connections keeps the TLS of a channel.
Evidence is what earlier migrations to the same peer showed, newest first: one that was accelerated, went mostly as it
is and left the link idle was slower than QEMU alone would have been. Migrations that went past it afterwards confirm
it as long as they are about as fast; evidence older than `EVIDENCE_S_MAX` is gathered anew, since links change.
"""

from collections.abc import Iterable
from typing import Final

from dwcp_migrate.agent.tracking.uncaught import STEP_ASIDE
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.units import MIB, format_rate

ASIDE: Final = "aside"
"""The event of one that went past the pipeline in TLS from its start; detail: why."""
BOTH_ALLOW: Final = "may-go-in-clear"
"""The event of one whose peer let QEMU's bytes go in clear, as this host does."""
EVIDENCE_S_MAX: Final = 24 * 3600.0
EVIDENCE_BYTES_MIN: Final = 64 * MIB
"""Bytes from which a migration counts as evidence: a smaller one is over before its rate is meaningful."""
LINK_SHARE_MAX: Final = 0.2
"""Share of its time that a migration may have waited for the link, where the link counts as idle."""
UNCLASSIFIED_MIN: Final = 0.5
"""Share of its bytes that went as they are: only then the link is known to carry as much as QEMU would send."""
PAST_MAX: Final = 9
"""That go past it in a row; the next one shows anew whether that is right."""
CONFIRMED_MIN: Final = 0.8
"""Share of the accelerated rate that one which went past it has to reach to confirm that this was right."""


def reason_to_step_aside(ended: Iterable[Migration], peer: str, now: float, *, in_clear: bool) -> str:
    """Say why the next migration to a peer should go past the pipeline; empty where nothing shows that it should.

    Args:
        ended: migrations of this host that ended, newest first.
        peer: the destination's name.
        now: seconds since the epoch.
        in_clear: it would be left to QEMU without a question to the peer, which has to have allowed that before.
    """
    past: list[float] = []
    for record in ended:
        if not _counts(record, peer, now):
            continue
        rate = _rate(record)
        if record.passthrough_reason or any(event.event == ASIDE for event in record.events):
            past.append(rate)
            if len(past) == PAST_MAX:
                return ""
        elif not _is_evidence(record, in_clear=in_clear) or any(other < CONFIRMED_MIN * rate for other in past[:1]):
            return ""
        else:
            return f"the last one carried {format_rate(rate)} and left the link idle"
    return ""


def _counts(record: Migration, peer: str, now: float) -> bool:
    return (
        record.role == "source"
        and record.kind == "memory"
        and record.peer == peer
        and record.result == "completed"
        and record.passthrough_reason in ("", STEP_ASIDE)
        and _carried_bytes(record) >= EVIDENCE_BYTES_MIN
        and now - record.ended_at <= EVIDENCE_S_MAX
    )


def _carried_bytes(record: Migration) -> int:
    """Raw bytes; by libvirt's count where no agent saw them."""
    return record.counters.raw_bytes or record.processed_bytes


def _rate(record: Migration) -> float:
    """Raw bytes a second over the whole migration."""
    return _carried_bytes(record) / max(record.duration_s(record.ended_at), 1e-3)


def _is_evidence(record: Migration, *, in_clear: bool) -> bool:
    is_allowed = any(event.event == BOTH_ALLOW for event in record.events)
    return _left_link_idle(record) and (is_allowed or not in_clear)


def _left_link_idle(record: Migration) -> bool:
    counters = record.counters
    total_s = sum(counters.held_up_s.values())
    idle = total_s > 0 and counters.held_up_s.get("link", 0.0) <= LINK_SHARE_MAX * total_s
    return idle and counters.unclassified_bytes >= UNCLASSIFIED_MIN * counters.raw_bytes
