"""Accuracy of each forecaster, on synthetic classes of series and on traces that the operator has.

Rule: nothing is judged on a series that it was trained on. On synthetic series the shipped models run as they are; of
each set of traces two files in three, by a checksum of their names, train everything that can be trained (beginning
with the shipped models where torch is installed), the rest judges.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bench.frame import Options, Row
from dwcp_migrate.bandwidth.forecasting import priors, synthetic
from dwcp_migrate.bandwidth.forecasting.ensemble import Ensemble
from dwcp_migrate.bandwidth.forecasting.evaluation import MIX, WARM_UP, ForecastScore, run, score
from dwcp_migrate.bandwidth.storage import model_files
from dwcp_migrate.bandwidth.targets import TARGETS, Floats

SERIES: Final = 32
SAMPLES: Final = 600
"""Of each synthetic class."""

_UNITS: Final = ("accuracy_percent", "wape_percent", "pinball", "coverage_percent")


def synthetic_rows(options: Options) -> list[Row]:
    """Measure on the classes of `synthetic`."""
    count = SERIES // 4 if options.quick else SERIES
    found = []
    shipped = model_files.load()
    for name, make in synthetic.CLASSES.items():
        draw = np.random.default_rng([options.seed, zlib.crc32(name.encode())])
        series = [make(draw, SAMPLES) for _ in range(count)]
        method = (
            f"{count} series of {SAMPLES} samples, seed {options.seed}, noise floor {synthetic.FLOORS_PERCENT[name]} %"
        )
        found += _rows(name, _scores(shipped, series), count, method)
    return found


def trace_rows(options: Options) -> list[Row]:
    """Measure on the sets of traces in `options.traces`; none without."""
    if not options.traces:
        return []
    found = []
    for name, by_file in model_files.traces(Path(options.traces)).items():
        long = {file: values for file, values in by_file.items() if len(values) > WARM_UP}
        train = [values for file, values in long.items() if not is_test(file)]
        test = [values for file, values in long.items() if is_test(file)]
        if not (train and test):
            continue
        fitted, how = _fitted(train, options)
        method = f"{len(test)} traces, {sum(map(len, test))} rows, {how} {len(train)} others"
        found += _rows(name, _scores(fitted, test), len(test), method)
    return found


def is_test(file: str) -> bool:
    """Whether a trace judges: one in three, by its name."""
    return zlib.crc32(file.encode()) % 3 == 0


def _fitted(train: Sequence[Floats], options: Options) -> tuple[Ensemble, str]:
    """Train on traces all that can be trained; and how that was."""
    shipped = model_files.load()
    try:
        from dwcp_migrate.bandwidth.training.ensembles import TrainingEffort, train_ensemble
    except ImportError:
        bare = Ensemble(shipped.weights, priors.tune_ewma(train))
        prior = priors.learn(bare.experts, train)
        return Ensemble(bare.weights, bare.ewma, prior), "shipped models, the rest from"
    return train_ensemble(train, lambda *_: None, TrainingEffort(seed=options.seed), shipped), "trained on"


def _scores(ensemble: Ensemble, series: Sequence[Floats]) -> dict[str, list[ForecastScore]]:
    """ForecastScore each expert of the agent's panel, and the mix, which comes last."""
    found = score(run(ensemble.panel, series))
    return {name: found[name] for name in sorted(found, key=lambda name: (name == MIX, list(found).index(name)))}


def _rows(series: str, scores: Mapping[str, list[ForecastScore]], n: int, method: str) -> list[Row]:
    found = []
    for forecaster, by_target in scores.items():
        for target, result in zip(TARGETS, by_target, strict=True):
            if not result.outcomes:
                continue
            figures = (result.accuracy_percent, result.wape_percent, result.pinball_percent, result.coverage_percent)
            found += [
                Row(
                    case=f"accuracy/{series}/{forecaster}",
                    metric=f"{metric}/{target.name}",
                    value=round(figure, 3),
                    unit="percent of the mean" if metric == "pinball" else "percent",
                    n=n,
                    method=method,
                )
                for metric, figure in zip(_UNITS, figures, strict=True)
            ]
    return found
