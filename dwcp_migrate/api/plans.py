"""Plans that agents carry out, as the control API tells and takes them.

The rule: as in `api`. A plan's record is its goal and its results, never its steps: an agent that takes it up plans for
that goal in the fleet as it is then. A change names the revision that it is of.

    GET  /v1/plans                     PlanList       those that have not ended, then the last that have
    POST /v1/plans/put?id=N&revision=R StoredPlan     the body is a `PlanRecord` as JSON; N and R are 0 for a new one

Errors: status 412 where somebody else changed it meanwhile; else as in `api.cluster`.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dwcp_migrate.api.kept_record import decode_kept
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.placement.plan import Goal, Unfinished
from dwcp_migrate.placement.watch_settings import WatchSettings
from dwcp_migrate.units import KIB

RECORD_BYTES_MAX: Final = 96 * KIB
"""One record as it is kept; lists lose their oldest entries until it fits."""

EVENTS_MAX: Final = 64
WORDS_MAX: Final = 300
"""Characters of an error, or of a reason, that a record keeps."""

BEGINS_AT_MAX: Final = 2.0**33
"""Latest time of a plan, in the year 2242: every host can write it as a date."""

PlanWish = Literal["run", "pause", "abort"]
PlanState = Literal["waiting", "running", "paused", "completed", "partly", "failed", "refused", "aborted"]
OPEN: Final = frozenset({"waiting", "running", "paused"})
"""States of plans that have not ended."""


class WarmMove(msgspec.Struct, frozen=True, array_like=True):
    """A guest that is warmed up ahead of its move: its name, where it runs, and whose store gets its pages."""

    domain: str
    source: str
    destination: str


class WarmFirst(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Warm-ups ahead of a plan's moves; see `api.warm_plan`.

    Attributes:
        begins_at: when the moves begin at the latest, seconds since the epoch.
        waits: they begin no sooner; else as soon as every guest is warm, or will not be.
        bytes_per_s: most on the wire of a host's warm-ups; 0 is no limit of their own.
        moves: in the plan's order. The plan keeps to their destinations where it can.
    """

    begins_at: Annotated[float, Meta(ge=0, le=BEGINS_AT_MAX)]
    waits: bool = False
    bytes_per_s: Annotated[float, Meta(ge=0)] = 0.0
    moves: list[WarmMove] = []


class GuestWarmth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Outcome of a guest's warm-up: it is warm, or migrates as without one; `words` say why."""

    at: float
    is_warm: bool = False
    words: str = ""


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request behind a plan.

    Attributes:
        goal: what the plan is for.
        options: of its migrations.
        at_once: migrations at once; 0 is the policy's.
        reached: hosts whose libvirtds the asker reached: a carrier that does not reach them refuses the plan.
        relieve: hosts that are hot, which is all that the plan is about; `resting` domains stay.
        watch: settings of the service that asked.
        warm_first: warm-ups ahead of the moves; None: none, and the moves begin at once.
    """

    goal: Goal
    options: MigrationOptions = MigrationOptions()
    at_once: Annotated[int, Meta(ge=0)] = 0
    reached: list[str] = []
    relieve: list[str] = []
    resting: list[str] = []
    watch: WatchSettings | None = None
    warm_first: WarmFirst | None = None


class PlanEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened; `serial` counts from 1."""

    serial: int
    at: float
    event: Literal["carried", "begun", "done", "failed", "planned-again", "waiting"]
    domain: str = ""
    source: str = ""
    destination: str = ""
    words: str = ""


class FailedMove(msgspec.Struct, frozen=True, array_like=True):
    """A migration that failed: its destination, and libvirt's words."""

    host: str
    error: str


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One plan.

    Attributes:
        id: its number; 0 for one that is not kept yet.
        by: the host where it was asked for.
        wish: what operators want of it.
        carrier: the host whose agent carries it out, or did last.
        to_go: migrations of its newest plan that have not ended.
        running: those that run, as `DOMAIN: SOURCE -> DESTINATION`.
        ends_at: when it ends by forecast, seconds since the epoch; 0 is not known.
        warmed: outcome of each domain's warm-up.
        moved: when each domain arrived somewhere, the oldest first.
        failed: migrations of each domain that failed, the oldest first.
        left: what could not be done.
        note: the last word on it.
        exit_code: that a command ends with, once it has ended.
        cut: entries that were left out for its size.
    """

    request: PlanRequest
    id: int = 0
    by: str = ""
    asked_at: float = 0.0
    wish: PlanWish = "run"
    state: PlanState = "waiting"
    carrier: str = ""
    to_go: int = 0
    running: list[str] = []
    ends_at: float = 0.0
    ended_at: float = 0.0
    warmed: dict[str, GuestWarmth] = {}
    moved: dict[str, float] = {}
    failed: dict[str, list[FailedMove]] = {}
    left: list[Unfinished] = []
    events: list[PlanEvent] = []
    note: str = ""
    exit_code: int = 0
    cut: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state in OPEN


class StoredPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A record at one of its revisions."""

    revision: int
    record: PlanRecord


class PlanList(msgspec.Struct, frozen=True, kw_only=True):
    """Plans, the newest last."""

    plans: list[StoredPlan] = []


def encode_record(record: PlanRecord) -> bytes:
    """Write a record; one that is too large loses the oldest entries of its longest list until it fits.

    Raises:
        PlacementError: what was asked for is too large by itself.
    """
    while len(data := msgspec.json.encode(record)) > RECORD_BYTES_MAX:
        sizes = {
            name: len(msgspec.json.encode(getattr(record, name))) for name in ("moved", "failed", "left", "events")
        }
        name = max(sizes, key=lambda one: sizes[one])
        entries = getattr(record, name)
        if not entries:
            raise PlacementError(f"what is asked for takes {len(data)} bytes, more than {RECORD_BYTES_MAX}")
        gone = (len(entries) + 1) // 2
        kept = dict(list(entries.items())[gone:]) if isinstance(entries, dict) else entries[gone:]
        record = msgspec.structs.replace(record, cut=record.cut + gone, **{name: kept})
    return data


def decode_record(data: bytes) -> PlanRecord:
    """Read a record.

    Raises:
        PlacementError: it is none, or too large.
    """
    return decode_kept(data, PlanRecord, "a plan's record", RECORD_BYTES_MAX)
