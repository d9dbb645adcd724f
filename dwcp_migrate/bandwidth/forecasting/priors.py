"""Initial state of the panel of forecasters: bands, losses and EWMA weights, found on training series.

The rule: no torch, only the panel itself run over series that it will not be judged on.
"""

import io
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting.bands import untrained
from dwcp_migrate.bandwidth.forecasting.conformal import calibrated
from dwcp_migrate.bandwidth.forecasting.evaluation import WARM_UP, Said, run
from dwcp_migrate.bandwidth.forecasting.features import RATIO_MAX
from dwcp_migrate.bandwidth.forecasting.mix import TRUST
from dwcp_migrate.bandwidth.forecasting.panel import Experts, Panel, Prior
from dwcp_migrate.bandwidth.forecasting.weights import read_arrays
from dwcp_migrate.bandwidth.forecasting.windows import VALUE_MIN, SeriesWindow
from dwcp_migrate.bandwidth.targets import QUANTILES, TARGETS, Floats, compute_outcomes, pinball_loss
from dwcp_migrate.errors import ConfigError

CALIBRATION_OUTCOMES: Final = 100
"""With so many independent outcomes half of what they show is believed: 19 series of five minutes hold 70 of the mean
over a minute, and what those lacked by chance made new series worse when it was believed in full."""

TRUSTS: Final = (30.0, 100.0, 300.0)
"""Candidates for the outcomes that the losses of training count for. On series of many kinds each one's own outcomes
say more (30), on links of one kind what training found says more (300)."""

EWMA_WEIGHTS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
"""Candidates for the weight of the newest sample."""


def tune_ewma(series: Sequence[Floats]) -> Floats:
    """Find the weight with the least absolute error for each target: (targets,)."""
    lost = np.zeros((len(EWMA_WEIGHTS), len(TARGETS)))
    gains = np.array(EWMA_WEIGHTS)
    for values in series:
        came = compute_outcomes(values)
        level = np.full(len(gains), values[0])
        said = np.empty((len(values), len(gains)))
        for at, value in enumerate(values):
            level = level + gains * (value - level)
            said[at] = level
        error = np.abs(said[:, :, None] - came[:, None, :]) / values.mean()
        lost += np.nansum(error, axis=0)
    best: Floats = gains[lost.argmin(axis=0)]
    return best


def learn(make: Callable[[int], Experts], series: Sequence[Floats]) -> Prior:
    """Find bands, losses, how far to trust them, and corrections.

    The point experts run over the series alone, then the whole panel with their bands, then with the weights that
    follow, once for each candidate of `TRUSTS`: each target takes the one that it does best with.

    Args:
        make: experts for so many series.
        series: to learn from.
    """
    flat = np.zeros((len(TARGETS), 2))
    even = Prior(
        _bands(make(len(series)), series),
        np.ones((len(make(1).names), len(TARGETS), len(QUANTILES))),
        flat,
        np.full(len(TARGETS), TRUST),
    )
    losses = _losses(run(_panels(make, even), series))
    trust, stretch, least = even.trust.copy(), flat.copy(), np.full(len(TARGETS), np.inf)
    for candidate in TRUSTS:
        weighted = Prior(even.bands, losses, flat, np.full(len(TARGETS), candidate))
        said = run(_panels(make, weighted), series)
        lost = _lost(said)
        better = lost < least
        least[better], trust[better], stretch[better] = lost[better], candidate, _stretch(said)[better]
    return Prior(even.bands, losses, stretch, trust)


def _panels(make: Callable[[int], Experts], prior: Prior) -> Callable[[int], Panel]:
    return lambda count: Panel(count, make(count), prior)


def together(first: Prior, second: Prior) -> Prior:
    """Return the mean of two priors.

    Args:
        first: of the same experts as
        second: the other one.
    """
    return Prior(
        (first.bands + second.bands) / 2,
        (first.losses + second.losses) / 2,
        (first.stretch + second.stretch) / 2,
        (first.trust + second.trust) / 2,
    )


def _bands(experts: Experts, series: Sequence[Floats]) -> Floats:
    """Quantiles of ln(outcome / point) for each point expert: (point experts, targets, 3)."""
    history = SeriesWindow(len(series))
    lengths = np.array([len(values) for values in series])
    errors = np.full((len(experts.points), int(lengths.max()), len(series), len(TARGETS)), np.nan)
    came = [compute_outcomes(np.maximum(values, VALUE_MIN)) for values in series]
    for at in range(int(lengths.max())):
        slots = np.flatnonzero(lengths > at)
        history.push(slots, np.array([series[int(slot)][at] for slot in slots]))
        truth = np.log(np.stack([came[int(slot)][at] for slot in slots]))
        for index, expert in enumerate(experts.points):
            said = np.log(expert.step(slots, history))
            errors[index, at, slots] = np.clip(truth - said, -RATIO_MAX, RATIO_MAX)
    judged = errors[:, WARM_UP:].reshape(len(experts.points), -1, len(TARGETS))
    if not np.isfinite(judged).any(axis=1).all():
        return untrained(len(experts.points), len(TARGETS))
    return np.moveaxis(np.nanquantile(judged, QUANTILES, axis=1), 0, 2)


def _losses(said: Said) -> Floats:
    """Mean pinball loss of each expert relative to the mean of all: (experts, targets, 3)."""
    found = np.ones((len(said.names) - 1, len(TARGETS), len(QUANTILES)))
    for column in range(len(TARGETS)):
        truth, forecasts = said.truths[column], said.forecasts[column][:, :-1]
        if len(truth):
            lost = pinball_loss(truth[:, None], forecasts).mean(axis=0)
            found[:, column] = lost / np.maximum(lost.mean(axis=0), 1e-12)
    return found


def _lost(said: Said) -> Floats:
    """Mean pinball loss of the mix, in parts of each series' median: (targets,); infinite where nothing came."""
    found = np.full(len(TARGETS), np.inf)
    for column, (truth, scale) in enumerate(zip(said.truths, said.scales, strict=True)):
        if len(truth):
            lost = pinball_loss(truth, said.forecasts[column][:, -1]).mean(axis=-1)
            found[column] = (lost / np.maximum(scale, VALUE_MIN)).mean()
    return found


def _stretch(said: Said) -> Floats:
    """Width that the mix's bands lacked although they were corrected as they live: (targets, 2)."""
    found = np.zeros((len(TARGETS), 2))
    for column, (truth, target) in enumerate(zip(said.truths, TARGETS, strict=True)):
        if len(truth):
            # Outcomes of overlapping targets are no independent evidence.
            trust = len(truth) / (len(truth) + CALIBRATION_OUTCOMES * target.steps)
            found[column] = trust * calibrated(np.maximum(truth, VALUE_MIN), said.forecasts[column][:, -1])
    return found


def pack(prior: Prior, ewma: Floats, names: Sequence[str]) -> bytes:
    """Write a prior as `.npz`.

    Args:
        prior: the losses and corrections to begin with.
        ewma: (targets,), weights of the EWMA.
        names: of the experts, in the order of the prior's arrays.
    """
    buffer = io.BytesIO()
    arrays = {
        "bands": prior.bands,
        "losses": prior.losses,
        "stretch": prior.stretch,
        "trust": prior.trust,
        "ewma": ewma,
    }
    np.savez(buffer, allow_pickle=False, names=np.array(names), **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> tuple[Prior, Floats, tuple[str, ...]]:
    """Read a prior, the weights of its EWMA and the names of its experts.

    Raises:
        ConfigError: it is none, or too large.
    """
    arrays = read_arrays("prior", data)
    shape = (len(TARGETS), len(QUANTILES))
    expected = ("losses", "bands", "stretch", "trust", "ewma", "names")
    if missing := [name for name in expected if name not in arrays]:
        raise ConfigError(f"the prior lacks {', '.join(missing)}")
    losses, bands, stretch, trust, ewma, names = (arrays[name] for name in expected)
    fits = losses.shape[1:] == shape and bands.shape[1:] == shape and ewma.shape == shape[:1]
    fits = fits and stretch.shape == (len(TARGETS), 2) and trust.shape == shape[:1]
    if not fits or names.shape != losses.shape[:1] or names.dtype.kind != "U":
        raise ConfigError("the prior's arrays do not fit together")
    finite = all(np.isfinite(array).all() for array in (losses, bands, stretch, trust, ewma))
    if not finite or (losses <= 0).any() or (trust <= 0).any():
        raise ConfigError("the prior's numbers are out of bounds")
    return Prior(bands, losses, stretch, trust), ewma, tuple(str(name) for name in names)
