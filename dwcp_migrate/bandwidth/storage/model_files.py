"""Files of forecasting models: those of the package, and those that this host has trained (shell).

The rule: a file that cannot be used is never a reason to stop: the shipped models stand behind the host's own, and the
forecasters that need no training behind those.

    models/MODEL.npz, models/prior.npz     shipped, trained on `synthetic.mixture`
    STATE/models/current/...               the host's own, each taken only after it was better on history held out
    STATE/models/previous/...              those that they replaced, to go back to
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting import priors
from dwcp_migrate.bandwidth.forecasting.ensemble import DEFAULT_MODELS, EWMA_DEFAULT, Ensemble
from dwcp_migrate.bandwidth.forecasting.weights import FILE_BYTES_MAX, MODELS, pack_weights, unpack_weights
from dwcp_migrate.bandwidth.targets import Floats
from dwcp_migrate.errors import ConfigError, NotFoundError

SHIPPED: Final = Path(__file__).parents[1] / "models"
PRIOR: Final = "prior.npz"

SERIES_DIRECTORY: Final = "series"
_MODELS: Final = "models"

TRACE_BYTES_MAX: Final = 64 * 1024 * 1024
TRACE_FILES_MAX: Final = 20_000


def load(models: Sequence[str] = DEFAULT_MODELS, directory: Path = SHIPPED) -> Ensemble:
    """Read an ensemble; the prior only if it is of exactly these experts.

    Args:
        models: names of the neural experts.
        directory: of their files and the prior's.

    Raises:
        ConfigError: a file is there and wrong.
        NotFoundError: a file is not there.
    """
    weights = {name: unpack_weights(MODELS[name], read(directory / f"{name}.npz")) for name in models}
    prior, ewma, names = priors.unpack(read(directory / PRIOR))
    bare = Ensemble(weights, ewma)
    return Ensemble(weights, ewma, prior) if names == bare.experts(1).names else bare


def load_or_plain(directory: Path = SHIPPED) -> tuple[Ensemble, str]:
    """Read the agent's ensemble; without usable files the one that needs no training, and why."""
    try:
        return load(directory=directory), ""
    except (ConfigError, NotFoundError) as error:
        return Ensemble({}, EWMA_DEFAULT), str(error)


def in_use(state: Path) -> Ensemble:
    """The ensemble that an agent with this state directory uses: its own, the shipped one, or the plain one."""
    current = state / _MODELS / "current"
    if current.is_dir():
        try:
            return load(directory=current)
        except (ConfigError, NotFoundError):
            return load_or_plain()[0]
    return load_or_plain()[0]


def replaced(state: Path) -> Ensemble | None:
    """The ensemble before the current one; None where nothing was replaced."""
    models = state / _MODELS
    if not (models / "current").is_dir():
        return None
    return load_or_plain(models / "previous")[0] if (models / "previous").is_dir() else load_or_plain()[0]


def promote(state: Path, ensemble: Ensemble) -> None:
    """Put an ensemble into use; the one in use becomes the previous one.

    Args:
        state: the agent's state directory.
        ensemble: with a prior.

    Raises:
        ConfigError: the directory cannot be written.
    """
    models = state / _MODELS
    save(models / "next", ensemble)
    try:
        _remove(models / "previous")
        if (models / "current").is_dir():
            (models / "current").replace(models / "previous")
        (models / "next").replace(models / "current")
    except OSError as error:
        raise ConfigError(f"cannot write {models}: {error.strerror}") from error


def roll_back(state: Path) -> None:
    """Put the previous ensemble into use again; without one the shipped one.

    Raises:
        ConfigError: the directory cannot be written.
    """
    models = state / _MODELS
    try:
        _remove(models / "current")
        if (models / "previous").is_dir():
            (models / "previous").replace(models / "current")
    except OSError as error:
        raise ConfigError(f"cannot write {models}: {error.strerror}") from error


def _remove(directory: Path) -> None:
    """Remove a directory of models, which holds files only."""
    if directory.is_dir():
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def read(path: Path) -> bytes:
    """Read a file of models, at most `FILE_BYTES_MAX`.

    Raises:
        NotFoundError: it is not there or cannot be read.
        ConfigError: it is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}", hint="make it with `dwcp-migrate train`") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return data


def save(directory: Path, ensemble: Ensemble) -> None:
    """Write an ensemble that has a prior; each file is replaced as a whole.

    Args:
        directory: made if it is not there.
        ensemble: with a prior.

    Raises:
        ConfigError: the directory cannot be written.
    """
    if ensemble.prior is None:
        raise ConfigError("an ensemble without a prior is not finished")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, weights in ensemble.weights.items():
            _replace(directory / f"{name}.npz", pack_weights(MODELS[name], weights))
        names = ensemble.experts(1).names
        _replace(directory / PRIOR, priors.pack(ensemble.prior, ensemble.ewma, names))
    except OSError as error:
        raise ConfigError(f"cannot write {directory}: {error.strerror}") from error


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.replace(path)


def traces(directory: Path) -> dict[str, dict[str, Floats]]:
    """Read sets of traces: files of `time value` rows, each sub-directory a set, else the directory one set.

    The time column only orders the rows: a row is a step.

    Returns:
        For each set the traces by file name, in order.

    Raises:
        NotFoundError: there is no file.
        ConfigError: a file does not hold such rows, or there is too much.
    """
    groups = sorted(path for path in directory.glob("*") if path.is_dir()) or [directory]
    found = {
        group.name or "traces": {path.name: trace(path) for path in sorted(group.iterdir()) if path.is_file()}
        for group in groups
    }
    if not any(found.values()):
        raise NotFoundError(
            f"no traces in {directory}", hint="files of `time value` rows, in one directory for each set"
        )
    if sum(map(len, found.values())) > TRACE_FILES_MAX:
        raise ConfigError(f"{directory}: more than {TRACE_FILES_MAX} traces")
    return found


def trace(path: Path) -> Floats:
    """Read the values of one file of `time value` rows.

    Raises:
        ConfigError: it holds something else, or more than `TRACE_BYTES_MAX`.
    """
    if path.stat().st_size > TRACE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {TRACE_BYTES_MAX} bytes")
    try:
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", hint="each line is `time value`") from error
    if rows.ndim != 2 or rows.shape[1] != 2 or not np.isfinite(rows).all() or (rows[:, 1] < 0).any():  # noqa: PLR2004
        raise ConfigError(f"{path}: not rows of a time and a value from 0", hint="each line is `time value`")
    return np.asarray(rows[np.argsort(rows[:, 0], kind="stable"), 1])
