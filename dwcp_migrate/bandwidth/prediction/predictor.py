"""Prediction of a migration: duration, downtime, bytes on the wire, and whether it converges (pure).

The rule: uncertain numbers go in as quantiles and come out as quantiles. `SCENARIOS` quasi-random points (Halton's
sequence: the same ones every time) pick a link, a guest and a compression each; precopy is then played pass by pass for
all of them at once, as QEMU plays it:

    pass 1 sends the memory, pass i + 1 what was written during pass i: W (1 - exp(-D t / W))
    switchover once what is left fits into the downtime that is allowed at the rate of the last pass
    no switchover within PASSES_MAX: this scenario does not converge

Source of the switchover rule: QEMU, migration/migration.c, migration_iteration_run and `threshold_size`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.bandwidth.quantiles import NORMAL_HIGH, Range, normal_quantile
from dwcp_migrate.bandwidth.targets import QUANTILES, Floats

SCENARIOS: Final = 256
"""Quantiles of 256 quasi-random points lie within 2 % of those of 10 000 random ones."""

PASSES_MAX: Final = 40
"""A guest that needs more is one that an operator would not wait for."""

_PRIMES: Final = (2, 3, 5, 7, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFacts:
    """Known facts of a domain.

    Attributes:
        memory_bytes: what the first pass covers; live, what is left of the pass under way.
        dirty_bytes_per_s: pages that it writes to for the first time in a while, as bytes.
        working_set_bytes: what it writes to again and again.
        first_wire_share: bytes on the wire for each byte of memory in the first pass.
        later_wire_share: the same in later passes, which are mostly deltas.
        encode_bytes_per_s: raw bytes that the hosts can encode and decode, whatever the link.
    """

    memory_bytes: float
    dirty_bytes_per_s: Range
    working_set_bytes: Range
    first_wire_share: Range
    later_wire_share: Range
    encode_bytes_per_s: Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Known facts of the network path.

    Attributes:
        bytes_per_s: what this migration will get of the link, over its length.
        rtt_s: round trip.
        downtime_s_max: QEMU's `downtime-limit`.
        setup_s: before the first page, connections and hand-shakes included.
        pause_s: of every pause, however little is left: device state, libvirt's own round trips.
    """

    bytes_per_s: Range
    rtt_s: float = 0.0
    downtime_s_max: float = 0.3
    setup_s: float = 0.5
    pause_s: float = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted course of a migration; of the scenarios that converge, unless none does.

    Attributes:
        time_s: from the command to its end.
        downtime_s: for which the guest is paused.
        wire_bytes: on the link.
        passes: over memory, the last one included.
        convergence: share of the scenarios that converge, 0 to 1.
    """

    time_s: Range
    downtime_s: Range
    wire_bytes: Range
    passes: Range
    convergence: float

    @property
    def converges(self) -> bool:
        """True if it converges in more than half of the scenarios."""
        return self.convergence >= 0.5  # noqa: PLR2004


def predict_migration(guest: GuestFacts, path: Path, *, done_s: float = 0.0, later: bool = False) -> Prediction:
    """Play precopy.

    Args:
        guest: what is known of it.
        path: what is known of the way.
        done_s: seconds that have passed already, for a migration under way; they count into the time.
        later: a pass after the first one is under way, so that `memory_bytes` shrinks like a later one.
    """
    draws = _halton(SCENARIOS, len(_PRIMES))
    link = np.maximum(_at(path.bytes_per_s, draws[:, 0]), 1.0)
    dirty = _at(guest.dirty_bytes_per_s, draws[:, 1])
    working = np.maximum(_at(guest.working_set_bytes, draws[:, 1]), 1.0)
    first, shrunk = _at(guest.first_wire_share, draws[:, 2]), _at(guest.later_wire_share, draws[:, 3])
    encode = np.maximum(_at(guest.encode_bytes_per_s, draws[:, 4]), 1.0)
    share = shrunk if later else first
    played = _play(_Scenarios(link, dirty, working, shrunk, encode), guest.memory_bytes, share, path)
    downtime = played.left * np.maximum(shrunk / link, 1 / encode) + path.pause_s + 2 * path.rtt_s
    # Connections, hand-shakes and libvirt's phases take about eight round trips.
    before = 0.0 if done_s else path.setup_s + 8 * path.rtt_s
    time = done_s + before + played.elapsed + downtime
    kept = played.converged if played.converged.any() else np.ones(SCENARIOS, dtype=bool)
    return Prediction(
        time_s=_range(time[kept]),
        downtime_s=_range(downtime[kept]),
        wire_bytes=_range(played.wire[kept]),
        passes=_range(played.passes[kept]),
        convergence=float(played.converged.mean()),
    )


@dataclass(frozen=True, slots=True)
class _Scenarios:
    link: Floats
    dirty: Floats
    working: Floats
    shrunk: Floats
    encode: Floats


@dataclass(slots=True)
class _Played:
    elapsed: Floats
    wire: Floats
    left: Floats
    rate: Floats
    passes: Floats
    converged: NDArray[np.bool_]


def _play(given: _Scenarios, memory_bytes: float, share: Floats, path: Path) -> _Played:
    """Play all scenarios at once; one that has switched over keeps its figures."""
    left = np.full(SCENARIOS, memory_bytes)
    zeros = np.zeros(SCENARIOS)
    played = _Played(zeros, zeros, left, zeros, zeros, np.zeros(SCENARIOS, dtype=np.bool_))
    for _ in range(PASSES_MAX):
        raw_rate = np.minimum(given.link / np.maximum(share, 1e-6), given.encode)
        seconds = left / raw_rate
        running = ~played.converged
        played.elapsed = played.elapsed + running * seconds
        played.wire = played.wire + running * left * share
        played.passes = played.passes + running
        written = given.working * -np.expm1(-given.dirty * seconds / given.working)
        played.left = left = np.where(running, written, played.left)
        # QEMU judges by the rate of the pass that has just ended; what is left crosses as a later pass does.
        played.rate = np.where(running, raw_rate, played.rate)
        share = given.shrunk
        played.converged = played.converged | (left <= played.rate * path.downtime_s_max)
        if played.converged.all():
            break
    played.wire = played.wire + played.left * given.shrunk
    return played


def _halton(count: int, dimensions: int) -> Floats:
    """Halton's points: (count, dimensions), inside (0, 1); J. H. Halton 1960."""
    found = np.empty((count, dimensions))
    for column, base in enumerate(_PRIMES[:dimensions]):
        numbers, scale, value = np.arange(1, count + 1), 1.0, np.zeros(count)
        while numbers.any():
            scale /= base
            value += scale * (numbers % base)
            numbers = numbers // base
        found[:, column] = value
    return found


def _at(known: Range, shares: Floats) -> Floats:
    """The quantiles of a two-piece log-normal with the range's three: (scenarios,)."""
    if known.median <= 0:
        return np.zeros(len(shares))
    normal = normal_quantile(shares)
    below = np.log(known.median / max(known.low, known.median * 1e-3)) / NORMAL_HIGH
    above = np.log(max(known.high, known.median) / known.median) / NORMAL_HIGH
    found: Floats = known.median * np.exp(np.where(normal < 0, below, above) * normal)
    return found


def _range(values: Floats) -> Range:
    return Range.of(np.quantile(values, QUANTILES))
