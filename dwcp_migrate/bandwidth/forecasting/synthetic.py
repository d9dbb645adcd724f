"""Series of known kinds, for training, tests and the benchmark; the randomness is an argument.

Five classes are measured in the benchmark. Their noise floors, the mean absolute percentage error of someone who knows
the generator and every sample so far, follow from the noise: E|N(0, s)| = 0.8 s.

    class       next value                                                                     floor at 1 step
    stable      level                      * (1 + N(0, 0.02))                                   1.6 %
    linear      a line from 1 to 3 levels  * (1 + N(0, 0.04))                                   3.2 %
    periodic    level (1 + 0.35 sin(2 pi t / 48)) * (1 + N(0, 0.04))                            3.2 %
    volatile    level exp(x), x an AR(1) of 0.85 and N(0, 0.13); the level jumps once in 150    10.4 %, without jumps
    satellite   level exp(x), x as above of 0.7 and N(0, 0.12), the level drawn anew with every   9.6 %, without either
                change of beam, once in 15, and dead seconds: a chain of two states

`mixture` draws from a wider family, whose parameters vary: what the shipped models are trained on.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.bandwidth.forecasting.windows import VALUE_MIN
from dwcp_migrate.bandwidth.targets import Floats

LEVEL: Final = 1.0
FLOORS_PERCENT: Final = {"stable": 1.6, "linear": 3.2, "periodic": 3.2, "volatile": 10.4, "satellite": 9.6}


OUTAGES: Final = 0.15
"""Share of the mixture's series whose rate breaks down for single samples."""

SINES: Final = 0.6
"""Share of its periodic series that are sines; the others switch between two levels."""


def stable(draw: np.random.Generator, length: int) -> Floats:
    """Draw a series that is constant but for noise.

    Args:
        draw: source of randomness.
        length: samples.
    """
    return LEVEL * _noise(draw, length, 0.02)


def linear(draw: np.random.Generator, length: int) -> Floats:
    """Draw a steady rise to three times the level.

    Args:
        draw: source of randomness.
        length: samples.
    """
    return LEVEL * np.linspace(1, 3, length) * _noise(draw, length, 0.04)


def periodic(draw: np.random.Generator, length: int) -> Floats:
    """Draw a sine of 48 samples with a random phase.

    Args:
        draw: source of randomness.
        length: samples.
    """
    phase = draw.uniform(0, 2 * np.pi)
    wave = 1 + 0.35 * np.sin(2 * np.pi * np.arange(length) / 48 + phase)
    return LEVEL * wave * _noise(draw, length, 0.04)


def volatile(draw: np.random.Generator, length: int) -> Floats:
    """Draw an autoregression in logarithms whose level jumps now and then.

    Args:
        draw: source of randomness.
        length: samples.
    """
    return LEVEL * np.exp(_autoregression(draw, length, 0.85, 0.13) + _jumps(draw, length, 1 / 150, 0.35))


def satellite(draw: np.random.Generator, length: int) -> Floats:
    """Draw a link by satellite: a wandering rate that is drawn anew at each change of beam, and dead seconds between.

    The chance of dying differs from link to link, from one second in 100 to one in 12; an outage lasts 1 to 4 seconds
    on average.

    Args:
        draw: source of randomness.
        length: samples.
    """
    beams = _jumps(draw, length, 1 / 15, 0.25)
    alive = LEVEL * np.exp(beams + _autoregression(draw, length, 0.7, 0.12))
    return alive * ~_outages(draw, length, draw.uniform(0.02, 0.12), draw.uniform(1, 5))


CLASSES: Final[dict[str, Callable[[np.random.Generator, int], Floats]]] = {
    "stable": stable,
    "linear": linear,
    "periodic": periodic,
    "volatile": volatile,
    "satellite": satellite,
}
"""The measured classes by name."""


def mixture(draw: np.random.Generator, length: int) -> Floats:
    """Draw one series of a random kind and random parameters.

    Args:
        draw: source of randomness.
        length: samples.

    Returns:
        (length,), positive.
    """
    kind = draw.choice(len(_KINDS), p=[0.08, 0.08, 0.14, 0.28, 0.22, 0.2])
    found = _KINDS[kind](draw, length)
    if draw.random() < OUTAGES:
        found = found * np.where(draw.random(length) < draw.uniform(0.002, 0.03), draw.uniform(0.02, 0.6), 1.0)
    scaled: Floats = np.maximum(found, VALUE_MIN)
    return scaled


def _flat(draw: np.random.Generator, length: int) -> Floats:
    return _noise(draw, length, draw.uniform(0.005, 0.1))


def _line(draw: np.random.Generator, length: int) -> Floats:
    line: Floats = np.linspace(1, draw.uniform(0.3, 3), length) * _noise(draw, length, draw.uniform(0.01, 0.1))
    return line


def _wave(draw: np.random.Generator, length: int) -> Floats:
    period, phase = draw.uniform(6, 80), draw.uniform(0, 2 * np.pi)
    angle = 2 * np.pi * np.arange(length) / period + phase
    shape = np.sin(angle) if draw.random() < SINES else np.sign(np.sin(angle)) * draw.uniform(0.5, 1)
    wave: Floats = (1 + draw.uniform(0.1, 0.7) * shape) * _noise(draw, length, draw.uniform(0.01, 0.12))
    return wave


def _wandering(draw: np.random.Generator, length: int) -> Floats:
    slow = _autoregression(draw, length, draw.uniform(0.9, 0.998), draw.uniform(0.02, 0.2))
    fast = _autoregression(draw, length, draw.uniform(0.0, 0.8), draw.uniform(0.02, 0.35))
    return np.exp(slow + fast)


def _jumping(draw: np.random.Generator, length: int) -> Floats:
    levels = _jumps(draw, length, draw.uniform(0.004, 0.05), draw.uniform(0.2, 0.9))
    return np.exp(levels + _autoregression(draw, length, draw.uniform(0.0, 0.9), draw.uniform(0.02, 0.3)))


def _switching(draw: np.random.Generator, length: int) -> Floats:
    """Between two levels, each of its own lifetime: traffic that comes and goes."""
    stays = draw.uniform(0.85, 0.99, 2)
    states = np.empty(length, dtype=np.intp)
    state = 0
    chance = draw.random(length)
    for at in range(length):
        state = state if chance[at] < stays[state] else 1 - state
        states[at] = state
    levels = np.array([1.0, draw.uniform(0.1, 0.8)])
    return levels[states] * np.exp(_autoregression(draw, length, draw.uniform(0.0, 0.9), draw.uniform(0.02, 0.2)))


_KINDS: Final = (_flat, _line, _wave, _wandering, _jumping, _switching)


def _noise(draw: np.random.Generator, length: int, deviation: float) -> Floats:
    return np.maximum(1 + draw.normal(0, deviation, length), 0.05)


def _autoregression(draw: np.random.Generator, length: int, coefficient: float, deviation: float) -> Floats:
    found = np.empty(length)
    value = draw.normal(0, deviation / np.sqrt(1 - coefficient**2))
    for at, shock in enumerate(draw.normal(0, deviation, length)):
        value = coefficient * value + shock
        found[at] = value
    return found


def _outages(draw: np.random.Generator, length: int, dying: float, lasts: float) -> NDArray[np.bool_]:
    """Seconds that are dead: a chain of two states."""
    chance = draw.random(length)
    found = np.zeros(length, dtype=np.bool_)
    for at in range(1, length):
        found[at] = chance[at] < (1 - 1 / lasts if found[at - 1] else dying)
    return found


def _jumps(draw: np.random.Generator, length: int, chance: float, deviation: float) -> Floats:
    """A level in logarithms that is drawn anew at random times."""
    came = draw.random(length) < chance
    levels = draw.normal(0, deviation, length)
    found: Floats = np.where(came, levels, np.nan)
    found[0] = 0.0
    last = np.maximum.accumulate(np.where(np.isnan(found), 0, np.arange(length)))
    filled: Floats = found[last]
    return filled
