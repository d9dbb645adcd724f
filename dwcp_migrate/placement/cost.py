"""Cost of a move: seconds, downtime and bytes, and their price beside balance.

The rule here: callers that can forecast a migration pass a `MoveCost`; placement itself has only the plain model of
precopy.

A move is worth it when its gain in the objective (`arrays`) is above its price by `gain_min`. With the defaults a
migration of ten seconds costs as much as moving a tenth of a host to one that is 0.5 % emptier gains.
"""

from typing import Annotated, Final, Literal, Protocol

import msgspec
from msgspec import Meta

from dwcp_migrate.placement.fleet import MEMORY, Domain
from dwcp_migrate.units import MIB

RATIO: Final = 0.5
"""Bytes on the wire for each byte of memory: the ratio of stock compression on real guests, no better."""

ROUNDS_MAX: Final = 30
"""Passes over dirty memory that are counted; a guest that does not converge by then is paused by its operator."""

DOWNTIME_S: Final = 0.3
"""QEMU's own default bound (`downtime-limit`)."""


ForecastBy = Literal["model", "rates", "agent"]
"""Origin of a forecast: the plain model here, on configured or on measured rates; or an agent's predictor."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """Forecast of one migration.

    Attributes:
        seconds: from begin to end.
        downtime_s: for which the guest runs nowhere.
        wire_bytes: that cross the link.
        by: who says so.
    """

    seconds: float
    downtime_s: float
    wire_bytes: float
    by: ForecastBy = "model"


class MoveCost(Protocol):
    """Forecasts the migration of a domain over a link of a rate."""

    def __call__(self, domain: Domain, bytes_per_s: float, source: str = "", destination: str = "", /) -> Forecast:
        """Forecast one migration.

        Args:
            domain: what moves.
            bytes_per_s: what the link gives it.
            source: host that it leaves.
            destination: host that it goes to; empty while that is not decided.
        """


class PlacementPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of moves, and the number that may run at once.

    Attributes:
        gain_min: strict gain of each move beyond its price, in units of the objective.
        price_per_s: of a second of migration.
        price_per_downtime_s: of a second of downtime.
        moves_max: of one plan that balances; a drain has as many as it needs.
        balanced: a fleet whose fullest host is within this of the mean is left alone.
        cool_down_s: a domain that moved is not moved again for balance within this time.
        outgoing_max: migrations at once from one host.
        incoming_max: to one host.
        running_max: in the whole fleet.
        migration_s_max: for one migration, after which it is ended; its first pass is always let through.
    """

    gain_min: Annotated[float, Meta(ge=0)] = 1e-3
    price_per_s: Annotated[float, Meta(ge=0)] = 1e-4
    price_per_downtime_s: Annotated[float, Meta(ge=0)] = 1e-3
    moves_max: Annotated[int, Meta(ge=0)] = 10_000
    balanced: Annotated[float, Meta(ge=0, le=1)] = 0.05
    cool_down_s: Annotated[float, Meta(ge=0)] = 600.0
    outgoing_max: Annotated[int, Meta(ge=1)] = 2
    incoming_max: Annotated[int, Meta(ge=1)] = 2
    running_max: Annotated[int, Meta(ge=1)] = 5
    migration_s_max: Annotated[float, Meta(gt=0)] = 3600.0

    def price(self, forecast: Forecast) -> float:
        """Price of a migration, in units of the objective."""
        return self.price_per_s * forecast.seconds + self.price_per_downtime_s * forecast.downtime_s


def default_cost(domain: Domain, bytes_per_s: float, _source: str = "", _destination: str = "") -> Forecast:
    """Forecast precopy: all of memory once, then the pages written meanwhile, until the rest fits into the downtime.

    With d the dirty rate over the link's rate in raw bytes, pass n takes d^n of the first; a guest with d of 1 or more
    takes as many passes as there may be.

    Args:
        domain: that moves.
        bytes_per_s: rate of the link on the wire, above 0.
        _source: not used.
        _destination: not used.
    """
    memory_bytes = domain.demand.get(MEMORY, 0.0) * MIB
    raw_bytes_per_s = bytes_per_s / RATIO
    share = domain.dirty_bytes_per_s / raw_bytes_per_s
    left, sent, passes = memory_bytes, 0.0, 0
    while left > DOWNTIME_S * raw_bytes_per_s and passes < ROUNDS_MAX:
        sent += left
        left = min(memory_bytes, left * share)
        passes += 1
    downtime_s = left / raw_bytes_per_s
    disks_bytes = domain.copied_mib * MIB  # before memory, and as they are
    return Forecast(
        seconds=disks_bytes / bytes_per_s + sent / raw_bytes_per_s + downtime_s,
        downtime_s=downtime_s,
        wire_bytes=disks_bytes + (sent + left) * RATIO,
    )
