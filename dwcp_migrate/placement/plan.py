"""A plan: the moves of domains, their order, and the gain. JSON in, JSON out.

The rule here: a step may begin once the steps in `after` are done; whenever each begins after those, every host holds
the amounts promised to it at each moment, the migrating domain counted on both ends, and no rule is broken that was not
broken before.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.cost import ForecastBy
from dwcp_migrate.placement.fleet import DOMAINS_MAX, Name

STEPS_MAX: Final = 2 * DOMAINS_MAX
"""Each domain once, and once more by way of a third host."""

PLAN_BYTES_MAX: Final = 256 * 1024 * 1024

Purpose = Literal["rebalance", "drain", "migrate"]


class Goal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Goal of a plan; a fleet that changed gets a new plan with the same goal.

    Attributes:
        purpose: `drain` empties `host`, `migrate` moves `domain` (to `host`, if it is named), `rebalance` evens out.
    """

    purpose: Purpose
    host: str = ""
    domain: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One migration of a plan.

    Attributes:
        number: of the step, from 0.
        uuid: the domain's, where it is known.
        after: numbers of steps that must be done first.
        begins_s: when it begins, from the plan's begin, if all goes as forecast.
        seconds: that it takes, as forecast, with `downtime_s` and `wire_bytes`.
        forecast_by: who forecast them.
    """

    number: Annotated[int, Meta(ge=0, lt=STEPS_MAX)]
    domain: Name
    source: Name
    destination: Name
    after: list[int] = []
    begins_s: float = 0.0
    seconds: float = 0.0
    downtime_s: float = 0.0
    wire_bytes: float = 0.0
    forecast_by: ForecastBy = "model"
    uuid: str = ""


class Unfinished(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A domain that the plan could not help, and why.

    Attributes:
        in_flight: it is on its way to or from that host just now, by a migration that the plan did not begin.
    """

    domain: Name
    host: str
    why: str
    in_flight: bool = False


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Figures of a fleet.

    Attributes:
        fullest: level of the fullest host: its largest utilisation of a balanced resource.
        mean: of the levels of the hosts that are up, `deviation` likewise.
        broken: hard rules that do not hold.
    """

    fullest: float
    mean: float
    deviation: float
    broken: int


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bound on an exact plan's distance from the best.

    Attributes:
        fullest: level of the fullest host in the best assignment that was found; the plan comes within half of
            `Policy.balanced` of it.
        fullest_min: no assignment has less.
        price: of the plan's moves, in units of the objective.
        price_min: no moves that come as near cost less.
    """

    fullest: float
    fullest_min: float
    price: float
    price_min: float

    @property
    def fullest_gap(self) -> float:
        """Share by which the fullest host could be emptier at most."""
        return _gap(self.fullest, self.fullest_min)

    @property
    def price_gap(self) -> float:
        """Share by which the moves could be cheaper at most."""
        return _gap(self.price, self.price_min)


def _gap(value: float, least: float) -> float:
    return max(0.0, 1 - least / value) if value > 0 else 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it.

    Attributes:
        steps: in the order in which they begin.
        left: what could not be done.
        seconds: from begin to end, as forecast.
        proof: of an exact plan; a searched one has none.
    """

    goal: Goal
    steps: Annotated[list[Step], Meta(max_length=STEPS_MAX)] = []
    left: list[Unfinished] = []
    before: Figures
    after: Figures
    seconds: float = 0.0
    proof: Proof | None = None


def encode_plan(plan: Plan) -> bytes:
    """Write a plan as JSON."""
    return msgspec.json.encode(plan)


def decode_plan(data: bytes) -> Plan:
    """Read a plan from JSON.

    Raises:
        PlacementError: too large, not a plan, or steps that wait for what does not come before them.
    """
    if len(data) > PLAN_BYTES_MAX:
        raise PlacementError(f"plan: {len(data)} bytes are more than {PLAN_BYTES_MAX}")
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except msgspec.MsgspecError as error:
        hint = "`rebalance --json` and `drain HOST --dry-run --json` write plans"
        raise PlacementError(f"plan: {error}", hint=hint) from error
    for position, step in enumerate(plan.steps):
        if step.number != position:
            raise PlacementError(f"plan: step {step.number} stands in place {position}")
        if any(not 0 <= number < position for number in step.after):
            raise PlacementError(f"plan: step {position} waits for a step that does not come before it")
        if step.source == step.destination:
            raise PlacementError(f"plan: step {position} goes from {step.source} to itself")
    return plan
