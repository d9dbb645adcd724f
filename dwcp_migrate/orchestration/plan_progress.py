"""Changes of a plan's record (pure): notes of its carriers, and wishes of operators.

waiting ──> running ──> completed, partly, failed, aborted          refused: its carrier does not reach the fleet
^           │
└─ resume ─ paused

A plan that waits for its time has no carrier: a wish takes effect in its record at once.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec.structs import replace

from dwcp_migrate.api.plans import (
    EVENTS_MAX,
    WORDS_MAX,
    FailedMove,
    PlanEvent,
    PlanRecord,
    PlanState,
    PlanWish,
)
from dwcp_migrate.api.warm_plan import has_to_wait
from dwcp_migrate.errors import PlacementError, UnfinishedError
from dwcp_migrate.orchestration.failures import MigrationFailure
from dwcp_migrate.placement.plan import Step, Unfinished

EventKind = Literal["carried", "begun", "done", "failed", "planned-again", "waiting"]
STOPPED: Final = frozenset({"pause", "abort"})


def wished(record: PlanRecord, wish: PlanWish, now: float) -> PlanRecord:
    """Note an operator's wish in a plan's record.

    Args:
        record: as it is kept.
        wish: to be followed by its carrier; `run` also wakes a plan that is paused.
        now: seconds since the epoch.

    Raises:
        PlacementError: the plan has ended.
    """
    if not record.is_open:
        raise PlacementError(f"plan {record.id} has ended: {record.state}", hint="`dwcp-migrate plans` lists them")
    if has_to_wait(record, now) and wish != "run":  # nobody carries it out who would follow the wish
        return ended(replace(record, wish=wish), [], now, is_stopped=True)
    if wish != "pause" and record.state == "paused":
        return replace(record, wish=wish, state="waiting", note="")
    return replace(record, wish=wish)


def taken(record: PlanRecord, carrier: str, now: float) -> PlanRecord:
    """Note that an agent begins, or goes on, to carry a plan out.

    Args:
        record: as it is kept.
        carrier: name of that agent's host.
        now: seconds since the epoch.
    """
    words = "" if record.carrier in {"", carrier} else f"{record.carrier} carried it before"
    return noted(replace(record, carrier=carrier, state="running", running=[]), "carried", now, words=words)


def noted(record: PlanRecord, event: EventKind, now: float, step: Step | None = None, words: str = "") -> PlanRecord:
    """Append an event to a plan's record; of more than `EVENTS_MAX` the oldest go.

    Args:
        record: as it is.
        event: its kind.
        now: seconds since the epoch.
        step: migration that it is about; None for the plan as a whole.
        words: for people, cut to `WORDS_MAX` characters.
    """
    serial = record.events[-1].serial + 1 if record.events else 1
    one = PlanEvent(
        serial=serial,
        at=now,
        event=event,
        domain=step.domain if step else "",
        source=step.source if step else "",
        destination=step.destination if step else "",
        words=words[:WORDS_MAX],
    )
    return replace(record, events=[*record.events, one][-EVENTS_MAX:])


def begun(record: PlanRecord, step: Step, now: float) -> PlanRecord:
    """Note that a migration begins.

    Args:
        record: as it is.
        step: the migration.
        now: seconds since the epoch.
    """
    return noted(replace(record, running=[*record.running, way(step)]), "begun", now, step)


def finished(record: PlanRecord, step: Step, error: str, to_go: int, now: float) -> PlanRecord:
    """Note that a migration ended.

    Args:
        record: as it is.
        step: the migration.
        error: libvirt's words, cut to `WORDS_MAX` characters; empty where it succeeded.
        to_go: steps of the plan that have not ended.
        now: seconds since the epoch.
    """
    running = [one for one in record.running if one != way(step)]
    moved, failed = dict(record.moved), dict(record.failed)
    if error:
        failed[step.domain] = [*failed.get(step.domain, []), FailedMove(step.destination, error[:WORDS_MAX])]
    else:
        moved.pop(step.domain, None)
        moved[step.domain] = now
    changed = replace(record, running=running, moved=moved, failed=failed, to_go=to_go)
    return noted(changed, "failed" if error else "done", now, step, error)


def way(step: Step) -> str:
    """A migration in words."""
    return f"{step.domain}: {step.source} -> {step.destination}"


def ended(record: PlanRecord, left: Sequence[Unfinished], now: float, *, is_stopped: bool) -> PlanRecord:
    """The record once its carrier has done what it could.

    Args:
        record: as it was.
        left: what could not be done.
        now: seconds since the epoch.
        is_stopped: it was told to begin nothing more.
    """
    short = [Unfinished(domain=one.domain, host=one.host, why=one.why[:WORDS_MAX]) for one in left]
    record = replace(record, left=short, running=[], to_go=0, ends_at=0.0)
    if is_stopped and record.wish == "pause":
        return replace(record, state="paused", note="paused: nothing begins until it is resumed")
    moved = len(record.moved)
    if record.wish == "abort":
        return replace(record, state="aborted", ended_at=now, exit_code=UnfinishedError.exit_code, note="aborted")
    if not left:
        return replace(record, state="completed", ended_at=now, exit_code=0, note=f"{moved} moved")
    code = UnfinishedError.exit_code if moved else PlacementError.exit_code
    return replace(record, state="partly", ended_at=now, exit_code=code, note=f"{moved} moved, {len(left)} left")


def broken(record: PlanRecord, words: str, exit_code: int, now: float, *, is_refused: bool = False) -> PlanRecord:
    """Note that a plan cannot go on.

    Args:
        record: as it is.
        words: why, for people; cut to twice `WORDS_MAX` characters.
        exit_code: for the command that waits for the plan.
        now: seconds since the epoch.
        is_refused: nothing was begun, so that the host where it was asked for may carry it out itself.
    """
    state: PlanState = "refused" if is_refused else "failed"
    return replace(record, state=state, ended_at=now, exit_code=exit_code, note=words[: 2 * WORDS_MAX], running=[])


def failures_of(record: PlanRecord) -> dict[str, list[MigrationFailure]]:
    """Facts of a record that `failures.remembering` keeps."""
    return {domain: [MigrationFailure(one.host, one.error) for one in moves] for domain, moves in record.failed.items()}


def moved_since(records: Iterable[PlanRecord], since: float) -> set[str]:
    """List the domains that rebalancing moved lately.

    Args:
        records: of plans; those for another purpose do not count.
        since: seconds since the epoch.
    """
    return {
        domain
        for record in records
        if record.request.goal.purpose == "rebalance"
        for domain, at in record.moved.items()
        if at > since
    }
