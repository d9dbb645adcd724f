"""A migration's record: what happened, told by both data processes, libvirt and the agents.

The rule: a record only moves along `TRANSITIONS`, every time is an argument, and a fact that arrives late or twice
changes nothing that is already known better. Where the sources disagree on the result, libvirt's report counts, because
only libvirt knows where the guest runs.

    opening ──> precopy ──> switchover ──> ended
       │          │  ^  └──> postcopy ──────^
       │          v  │                      │
       │        waiting ────────────────────┤    the link is lost; QEMU waits
       └──> passthrough ────────────────────┘    unaccelerated, `passthrough_reason` says why
"""

from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from dwcp_migrate.api.course import CoursePoint, in_order, with_last_point, with_point
from dwcp_migrate.protocol.worker import Finished, Happened, MigrationCounters

State = Literal["opening", "precopy", "switchover", "postcopy", "waiting", "passthrough", "ended"]
Role = Literal["source", "destination"]
Result = Literal["", "completed", "failed"]

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    "opening": frozenset({"precopy", "passthrough", "ended"}),
    "precopy": frozenset({"switchover", "postcopy", "waiting", "ended"}),
    "switchover": frozenset({"postcopy", "waiting", "ended"}),
    "postcopy": frozenset({"waiting", "ended"}),
    "waiting": frozenset({"precopy", "switchover", "postcopy", "ended"}),
    "passthrough": frozenset({"ended"}),
    "ended": frozenset(),
}
"""Successors of each state. `waiting` returns to the state that it interrupted."""

EVENTS_MAX: Final = 256
"""Events kept in a record; the first and the newest ones matter most, so the middle is dropped."""

DETAIL_CHARACTERS_MAX: Final = 500
"""Length of any text that came from another process."""


LINK_CUT: Final = "the link is cut"
NO_CONVERGENCE: Final = "does not converge"
NO_ETA: Final = (LINK_CUT, NO_CONVERGENCE)
"""Reasons for which a running migration has no estimate."""

POSTCOPY_BROKE: Final = (
    "postcopy broke off: the destination has the guest, if it still has the domain, and not all memory"
)
"""Used only where libvirt reports it: then neither host has the whole guest, and neither domain may be destroyed."""

POSTCOPY_MAY_HAVE_BROKEN: Final = (
    "it ended in postcopy: `virsh domstate --reason` on both hosts says where the guest is"
)

POSTCOPY_REMEDY: Final = (
    "at the source, virsh migrate --live --postcopy --postcopy-resume DOMAIN URI goes on where it broke off"
    " (libvirt 11.3.0 crashes on it, see docs/operations.md); destroy the domain on neither host"
)

_POSTCOPY_WORDS: Final = frozenset({"postcopy-failed", "postcopy", "left", "arrived", "gone"})
"""Reports of libvirt on the place of a guest in postcopy; the last one counts."""


class MigrationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a migration, reported as `protocol.worker.Happened` or by libvirt (`libvirt-...`).

    Attributes:
        at: seconds since the epoch.
        connection: which of QEMU's connections, -1 for the migration as a whole.
        serial: its number among the data process's events; 0 of all others.
    """

    at: float
    event: str
    connection: int = -1
    detail: str = ""
    number: int = 0
    serial: int = 0


class MigrationPhase(msgspec.Struct, frozen=True, kw_only=True):
    """A state that the migration entered, and when (seconds since the epoch)."""

    state: State
    at: float


class ExpectedMigration(msgspec.Struct, frozen=True, kw_only=True):
    """Prediction of a migration when it began. Three numbers are the quantiles 0.1, 0.5 and 0.9.

    Attributes:
        time_s: from the first connection to the end of the record.
        downtime_s: for which the guest is paused.
        wire_bytes: on the channels.
        convergence: probability that precopy ends at all, 0 to 1.
        way: what was advised: `precopy`, `postcopy` or `not-now`; 0.1.0 also said `warm-first`.
        model_time_s: median time before earlier errors corrected it.
        model_downtime_s: the same of the downtime.
        is_guest_known: an earlier migration had shown the guest.
    """

    time_s: tuple[float, float, float]
    downtime_s: tuple[float, float, float]
    wire_bytes: tuple[float, float, float]
    convergence: float
    way: str
    model_time_s: float
    model_downtime_s: float = 0.0
    is_guest_known: bool = True


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one migration on this host. Also a line of the history file.

    Attributes:
        id: 32 hexadecimal digits, the same on both hosts; the CLI takes any unique prefix.
        kind: `memory`, or `disk` where it carries libvirt's NBD disk copy.
        peer: the other host's name, empty when its address belongs to no peer.
        address: where QEMU waits, with `port`.
        domain: libvirt's name, empty until the connection is tied to its domain, as `uuid`.
        started_at: seconds since the epoch, as `ended_at`; `ended_at` is 0 while it runs.
        result: empty while it runs.
        reason: why it failed; empty when it did not.
        passthrough_reason: why it ran unaccelerated; empty when it was accelerated.
        memory_bytes: guest memory as the stream announces it, else libvirt's figure.
        iteration: passes over memory so far.
        downtime_ms: libvirt's measure; -1 while unknown.
        raw_bytes_per_s: taken from QEMU lately; with `wire_bytes_per_s` 0 when it ended.
        remaining_bytes: libvirt's measure; -1 while unknown.
        processed_bytes: of memory, that QEMU sent by libvirt's measure; -1 while unknown, and before 0.2.0.
        dirty_bytes_per_s: libvirt's measure of what the guest writes; -1 while unknown.
        eta_s: estimated time to the end; -1 while unknown.
        eta_range_s: quantiles 0.1 and 0.9 of it; None while only the rates of the moment are known.
        eta_note: why there is no estimate, where that is known: one of `NO_ETA`.
        guest_paused: the user has paused the guest, or `virsh migrate --timeout` has: what crosses is its downtime.
        granted_bytes_per_s: what it was granted of its link; -1 where it is not held to a rate.
        expected: what was predicted when it began; None where too little was known.
        peer_result: what the other end recorded.
        course: how it went on, moment by moment; empty in records before 0.2.0 and of what passed through.
        version: of this software; empty in records before 0.2.0.
    """

    id: str
    role: Role
    kind: Literal["memory", "disk"] = "memory"
    state: State = "opening"
    peer: str
    address: str
    port: int
    domain: str = ""
    uuid: str = ""
    started_at: float
    ended_at: float = 0.0
    result: Result = ""
    reason: str = ""
    passthrough_reason: str = ""
    memory_bytes: int = 0
    iteration: int = 0
    downtime_ms: int = -1
    raw_bytes_per_s: float = 0.0
    wire_bytes_per_s: float = 0.0
    remaining_bytes: int = -1
    processed_bytes: int = -1
    dirty_bytes_per_s: float = -1.0
    eta_s: float = -1.0
    eta_range_s: tuple[float, float] | None = None
    eta_note: str = ""
    guest_paused: bool = False
    granted_bytes_per_s: float = -1.0
    expected: ExpectedMigration | None = None
    peer_result: str = ""
    counters: MigrationCounters = msgspec.field(default_factory=MigrationCounters)
    connections: dict[str, int] = {}
    phases: tuple[MigrationPhase, ...] = ()
    events: tuple[MigrationEvent, ...] = ()
    course: tuple[CoursePoint, ...] = ()
    version: str = ""

    @property
    def ratio(self) -> float:
        """Raw bytes for each byte on the wire; 1 before anything was sent."""
        wire = self.counters.wire_bytes
        return self.counters.raw_bytes / wire if wire else 1.0

    @property
    def is_delivered(self) -> bool:
        """Whether all of QEMU's bytes have crossed; only libvirt's report of the result is to come."""
        closed = sum(event.event == "connection-closed" for event in self.events)
        return 0 < sum(self.connections.values()) <= closed

    @property
    def is_split(self) -> bool:
        """Whether libvirt reported last that postcopy broke off: then neither host has the whole guest."""
        words = (event.event.removeprefix("libvirt-") for event in reversed(self.events) if "libvirt-" in event.event)
        return next((word for word in words if word in _POSTCOPY_WORDS), "") == "postcopy-failed"

    def duration_s(self, now: float) -> float:
        """Duration until its end or until `now`, seconds since the epoch."""
        return max(0.0, (self.ended_at or now) - self.started_at)


def enter_state(record: Migration, state: State, now: float) -> Migration:
    """Move a record to a state; a move that `TRANSITIONS` does not have leaves it as it is.

    Args:
        record: as it is.
        state: next one.
        now: seconds since the epoch.
    """
    if state not in TRANSITIONS[record.state]:
        return record
    record = replace(record, state=state, phases=(*record.phases, MigrationPhase(state=state, at=now)))
    return without_eta(record, LINK_CUT if state == "waiting" else "") if state in _NEW_ETA else record


_NEW_ETA: Final[frozenset[State]] = frozenset({"precopy", "waiting", "postcopy"})
"""States whose beginning makes an earlier estimate invalid."""


def without_eta(record: Migration, note: str) -> Migration:
    """Remove the estimate of the end.

    Args:
        record: as it is.
        note: why there is none, one of `NO_ETA`; empty if that is not known.
    """
    if record.eta_s < 0 and record.eta_range_s is None and record.eta_note == note:
        return record
    return replace(record, eta_s=-1.0, eta_range_s=None, eta_note=note)


def with_eta(record: Migration, eta_s: float, low_s: float, high_s: float) -> Migration:
    """Set the estimate of the end.

    Args:
        record: as it is.
        eta_s: median time from now to the end.
        low_s: quantile 0.1 of it.
        high_s: quantile 0.9.
    """
    return replace(record, eta_s=eta_s, eta_range_s=(low_s, high_s), eta_note="")


def append_event(record: Migration, event: MigrationEvent) -> Migration:
    """Append an event; of `EVENTS_MAX` that are there the oldest of the newer half makes room.

    Args:
        record: as it is.
        event: its detail is cut to `DETAIL_CHARACTERS_MAX`.
    """
    event = replace(event, detail=event.detail[:DETAIL_CHARACTERS_MAX])
    events = record.events
    if len(events) >= EVENTS_MAX:
        middle = EVENTS_MAX // 2
        events = events[:middle] + events[middle + 1 :]
    return replace(record, events=(*events, event))


def apply_happened(record: Migration, message: Happened, now: float) -> Migration:
    """Apply an event that a data process reports.

    Args:
        record: as it is.
        message: the report.
        now: time of an event that carries none, seconds since the epoch.
    """
    now = message.at or now
    known = MigrationEvent(
        at=now,
        event=message.event,
        connection=message.connection,
        detail=message.detail,
        number=message.number,
        serial=message.serial,
    )
    record = append_event(record, known)
    follow = _STATE_OF_EVENT.get(message.event)
    if follow is not None:
        return enter_state(record, follow, now)
    match message.event:
        case "connection-opened":
            record = _connection_opened(record, message.detail, now)
        case "iteration":
            record = replace(record, iteration=max(record.iteration, message.number))
        case "ram-total":
            record = replace(record, memory_bytes=message.number)
        case "link-restored" if record.state == "waiting":
            record = enter_state(record, _interrupted(record), now)
    return record


_STATE_OF_EVENT: Final[dict[str, State]] = {
    "switchover": "switchover",
    "postcopy": "postcopy",
    "link-lost": "waiting",
}


def _connection_opened(record: Migration, kind: str, now: float) -> Migration:
    kind = kind[:DETAIL_CHARACTERS_MAX]
    connections = {**record.connections, kind: record.connections.get(kind, 0) + 1}
    if record.state == "opening":
        record = enter_state(record, "precopy", now)
    if kind == "nbd":
        record = replace(record, kind="disk")
    return replace(record, connections=connections)


def _interrupted(record: Migration) -> State:
    """The state before `waiting`."""
    return next((phase.state for phase in reversed(record.phases) if phase.state != "waiting"), "precopy")


RATE_WEIGHT: Final = 0.4
"""Weight of the newest sample in the smoothed rates: about the last two seconds at a sample every 0.5 s."""


def apply_counters(record: Migration, counters: MigrationCounters, elapsed_s: float, now: float = 0.0) -> Migration:
    """Apply new totals of a data process, and smooth the rates.

    Args:
        record: with the totals before.
        counters: totals since the migration began.
        elapsed_s: between both; at 0 or less the rates stay as they are.
        now: seconds since the epoch; 0 adds no point to the record's course.
    """
    if now:
        record = replace(record, course=with_point(record.course, _point(record, counters, now)))
    if elapsed_s <= 0:
        return replace(record, counters=counters)
    before = record.counters
    raw = (counters.raw_bytes - before.raw_bytes) / elapsed_s
    wire = (counters.wire_bytes - before.wire_bytes) / elapsed_s
    record = replace(
        record,
        counters=counters,
        raw_bytes_per_s=_smooth(record.raw_bytes_per_s, max(0.0, raw)),
        wire_bytes_per_s=_smooth(record.wire_bytes_per_s, max(0.0, wire)),
    )
    return record if record.eta_range_s is not None or record.eta_note else replace(record, eta_s=_eta_s(record))


def _point(record: Migration, counters: MigrationCounters, now: float) -> CoursePoint:
    return CoursePoint(
        round(max(0.0, now - record.started_at), 2),
        counters.raw_bytes,
        counters.wire_bytes,
        record.remaining_bytes,
        int(record.dirty_bytes_per_s),
        counters.channels,
        round(counters.rtt_s * 1000, 1),
        in_order(counters.held_up_s),
    )


def _smooth(before: float, sample: float) -> float:
    return sample if before == 0 else before + RATE_WEIGHT * (sample - before)


def _eta_s(record: Migration) -> float:
    """Time to the end while the guest goes on writing as it does; -1 = never or unknown."""
    dirty = 0.0 if record.state == "postcopy" or record.guest_paused else max(0.0, record.dirty_bytes_per_s)
    net = record.raw_bytes_per_s - dirty
    if record.remaining_bytes < 0 or net <= 0:
        return -1.0
    return record.remaining_bytes / net


def apply_finished(record: Migration, message: Finished, now: float = 0.0) -> Migration:
    """Apply a data process's last message; the result is preliminary until `close_record`.

    Args:
        record: as it is.
        message: how it ended; a reason that the record has already is kept.
        now: seconds since the epoch; 0 adds no point to the record's course.
    """
    if now:
        record = replace(record, course=with_last_point(record.course, _point(record, message.counters, now)))
    record = replace(record, counters=message.counters)
    if message.result == "carried":
        return record
    return replace(record, reason=record.reason or _reason(message))


def _reason(message: Finished) -> str:
    said = {
        "reset": "QEMU or libvirt broke the connection off",
        "link-lost": "the link to the peer was lost and did not come back in time",
        "aborted": "the agent ended it",
        "failed": "the data process failed",
    }.get(message.result, message.result)
    detail = message.detail[:DETAIL_CHARACTERS_MAX]
    return f"{said}: {detail}" if detail else said


def close_record(record: Migration, now: float, *, libvirt: Result = "", reason: str = "") -> Migration:
    """End a record; one that has ended stays as it is.

    Args:
        record: what is known.
        now: seconds since the epoch.
        libvirt: the result that libvirt reported, empty if it reported none.
        reason: why it failed; empty takes the record's own reason.
    """
    if record.state == "ended":
        return record
    result = libvirt or _own_result(record)
    why = "" if result == "completed" else _why(record, reason or record.reason)
    record = enter_state(record, "ended", now)
    return replace(
        record,
        ended_at=now,
        result=result,
        reason=why,
        eta_s=-1.0,
        eta_range_s=None,
        eta_note="",
        guest_paused=False,
        raw_bytes_per_s=0.0,
        wire_bytes_per_s=0.0,
    )


def _own_result(record: Migration) -> Result:
    """Result without libvirt's report: completed if nothing broke and a stream that was read passed the switchover."""
    if record.reason:
        return "failed"
    seen = {phase.state for phase in record.phases}
    read = record.state != "passthrough" and "main" in record.connections
    return "failed" if read and not seen & {"switchover", "postcopy"} else "completed"


def _why(record: Migration, known: str) -> str:
    """Say why it failed, and, after postcopy, where to look for the guest."""
    is_lost = any(event.event == "libvirt-gone" for event in record.events)
    if not any(phase.state == "postcopy" for phase in record.phases) and not record.is_split:
        return known or _default_reason(record)
    where = "" if is_lost else POSTCOPY_BROKE if record.is_split else POSTCOPY_MAY_HAVE_BROKEN
    return "; ".join(filter(None, [known, where])) or "its destination ended in postcopy"


def _default_reason(record: Migration) -> str:
    seen = {phase.state for phase in record.phases}
    if seen & {"switchover", "postcopy"}:
        return "libvirt took it back after the switchover"
    return "it ended before the switchover: cancelled, or QEMU failed it"
