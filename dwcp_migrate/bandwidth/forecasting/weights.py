"""Weights of the neural forecasters as `.npz` bytes: their exact content, and how they are read without trust.

The rule: nothing is unpickled and no size is believed. The members must be exactly those of the architecture, with its
shapes, in float32, finite; anything else is refused as a whole.
"""

import io
import zipfile
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.bandwidth.forecasting.features import OUTPUTS, WINDOW
from dwcp_migrate.bandwidth.targets import Floats
from dwcp_migrate.errors import ConfigError
from dwcp_migrate.units import MIB

FILE_BYTES_MAX: Final = 2 * MIB
"""The largest model (sequence 100, hidden 128) takes about 280 KiB."""

LSTM_INPUTS: Final = 2


@dataclass(frozen=True, slots=True)
class Architecture:
    """The form of one model.

    Attributes:
        name: of the model and its file.
        kind: `lstm` or `mlp`.
        sequence: samples that it was trained to look back.
        hidden: units of a hidden layer.
    """

    name: str
    kind: str
    sequence: int
    hidden: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its arrays."""
        if self.kind == "lstm":
            return {
                "input": (LSTM_INPUTS, 4 * self.hidden),
                "recurrent": (self.hidden, 4 * self.hidden),
                "bias": (4 * self.hidden,),
                "head": (self.hidden, OUTPUTS),
                "head_bias": (OUTPUTS,),
            }
        return {
            "first": (self.sequence, self.hidden),
            "first_bias": (self.hidden,),
            "second": (self.hidden, self.hidden),
            "second_bias": (self.hidden,),
            "head": (self.hidden, OUTPUTS),
            "head_bias": (OUTPUTS,),
        }


MODELS: Final = {
    model.name: model
    for model in (
        Architecture("mlp", "mlp", WINDOW, 64),
        Architecture("lstm-small", "lstm", 10, 32),
        Architecture("lstm-medium", "lstm", 50, 64),
        Architecture("lstm-large", "lstm", 100, 128),
    )
}
"""All neural models by name."""

Weights = dict[str, Floats]


def pack_weights(model: Architecture, weights: Weights) -> bytes:
    """Write weights as `.npz`, float32.

    Args:
        model: its form.
        weights: arrays by name, as `Architecture.shapes` has them.

    Raises:
        ConfigError: they are not this model's.
    """
    _check(model, {name: array.shape for name, array in weights.items()})
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: array.astype(np.float32) for name, array in weights.items()})
    return buffer.getvalue()


def read_arrays(what: str, data: bytes) -> dict[str, NDArray[Any]]:
    """Read the arrays of an `.npz` of at most `FILE_BYTES_MAX`, packed and unpacked; nothing in it is unpickled.

    Args:
        what: name of the file's content, for the error.
        data: the file.

    Raises:
        ConfigError: larger, or no such file.
    """
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{what}: {len(data)} bytes, at most {FILE_BYTES_MAX}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > FILE_BYTES_MAX:
                raise ConfigError(f"{what}: it unpacks to more than {FILE_BYTES_MAX} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except _UNREADABLE as error:
        raise ConfigError(f"{what} cannot be read: {error}", hint=_HINT) from error


_UNREADABLE: Final = (ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile)
"""Exceptions of numpy and zipfile on bytes that are no `.npz`: RuntimeError on what is encrypted or compressed in a way
that zipfile does not know, MemoryError because a header may name any shape."""


def unpack_weights(model: Architecture, data: bytes) -> Weights:
    """Read weights.

    Args:
        model: its form.
        data: the file.

    Returns:
        Arrays by name, float64.

    Raises:
        ConfigError: not this model's weights, or too large, or not finite.
    """
    arrays = read_arrays(f"weights of {model.name}", data)
    _check(model, {name: array.shape for name, array in arrays.items()})
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
        raise ConfigError(f"weights of {model.name} are not finite float32 numbers", hint=_HINT)
    return {name: array.astype(np.float64) for name, array in arrays.items()}


_HINT: Final = "make them with `dwcp-migrate train`"


def _check(model: Architecture, shapes: dict[str, tuple[int, ...]]) -> None:
    if shapes != model.shapes():
        raise ConfigError(f"these are not the weights of {model.name}: {shapes}", hint=_HINT)
