import io
import struct

import numpy as np
import pytest
import torch

from dwcp_migrate.bandwidth.forecasting.features import OUTPUTS, RATIO_MAX, ordered
from dwcp_migrate.bandwidth.forecasting.neural import Lstm, Mlp
from dwcp_migrate.bandwidth.forecasting.weights import FILE_BYTES_MAX, MODELS, Weights, pack_weights, unpack_weights
from dwcp_migrate.bandwidth.forecasting.windows import SeriesWindow
from dwcp_migrate.bandwidth.storage import model_files
from dwcp_migrate.bandwidth.targets import Floats
from dwcp_migrate.bandwidth.training.examples import sequences
from dwcp_migrate.bandwidth.training.networks import LstmNetwork, MlpNetwork
from dwcp_migrate.bandwidth.training.networks import ordered as ordered_in_torch
from dwcp_migrate.errors import ConfigError

MLP = MODELS["mlp"]


def drawn(name: str) -> Weights:
    draw = np.random.default_rng(1)
    return {key: draw.normal(0, 0.1, shape) for key, shape in MODELS[name].shapes().items()}


def series(count: int = 3, samples: int = 120) -> Floats:
    return np.random.default_rng(2).lognormal(0, 0.4, (count, samples))


def test_the_perceptron_in_numpy_says_what_torch_says() -> None:
    network = MlpNetwork(MLP)
    weights = drawn("mlp")
    network.take(weights)
    window = series(samples=MLP.sequence)
    level = window[:, -10:].mean(axis=1)
    inputs = torch.as_tensor(np.log(window / level[:, None]), dtype=torch.float32)
    wanted = level[:, None, None] * np.exp(network(inputs).detach().numpy())
    np.testing.assert_allclose(Mlp(MLP, weights).infer(window), wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["lstm-small", "lstm-medium", "lstm-large"])
def test_the_streaming_cell_says_what_torch_says_of_the_whole_sequence(name: str) -> None:
    model, weights, values = MODELS[name], drawn(name), series()
    network = LstmNetwork(model)
    network.take(weights)
    examples = sequences(list(values), model.sequence, values.shape[1])
    wanted = network(torch.as_tensor(examples.inputs, dtype=torch.float32), None)[0].detach().numpy()
    streaming, history, slots = Lstm(model, weights, 3), SeriesWindow(3), np.arange(3)
    level = values[:, 0]
    for at in range(values.shape[1]):
        history.push(slots, values[:, at])
        said = streaming.step(slots, history)
        level = level + 2 / (model.sequence + 1) * (values[:, at] - level)
        np.testing.assert_allclose(said, level[:, None, None] * np.exp(wanted[:, at]), rtol=1e-3)


def test_weights_survive_the_way_through_torch() -> None:
    for name in ("mlp", "lstm-small"):
        network = MlpNetwork(MODELS[name]) if name == "mlp" else LstmNetwork(MODELS[name])
        weights = drawn(name)
        network.take(weights)
        for key, array in network.export().items():
            np.testing.assert_allclose(array, weights[key], rtol=1e-6)


def test_quantiles_never_cross_whatever_the_network_says() -> None:
    outputs = np.random.default_rng(3).normal(0, 50, (40, OUTPUTS))
    said = ordered(outputs)
    assert (np.diff(said, axis=-1) >= 0).all()
    in_torch = ordered_in_torch(torch.as_tensor(outputs)).numpy()
    np.testing.assert_allclose(in_torch, np.clip(said, -RATIO_MAX, RATIO_MAX), atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_shipped_weights_are_there_and_say_positive_ascending_quantiles(name: str) -> None:
    ensemble = model_files.load((name,))
    expert, history, slots = ensemble.experts(2).quantiles[0], SeriesWindow(2), np.arange(2)
    for values in series(2).T:
        history.push(slots, values)
        said = expert.step(slots, history)
    assert (said > 0).all()
    assert (np.diff(said, axis=-1) >= 0).all()


def test_weights_are_packed_and_unpacked() -> None:
    weights = drawn("mlp")
    for key, array in unpack_weights(MLP, pack_weights(MLP, weights)).items():
        np.testing.assert_allclose(array, weights[key], rtol=1e-6)


def _npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _with(**changed: object) -> bytes:
    return _npz(**{**{key: array.astype(np.float32) for key, array in drawn("mlp").items()}, **changed})


def _zipped_as(field: int, value: int) -> bytes:
    """Weights whose archive says `value` in a field of its members' headers: 0 for the flags, 2 for the compression."""
    data = bytearray(pack_weights(MLP, drawn("mlp")))
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            struct.pack_into("<H", data, at + flags_at + field, value)
            at = data.find(signature, at + 1)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        _zipped_as(0, 1),
        _zipped_as(2, 99),
        b"PK\x03\x04 this is no archive",
        _with(head=np.array([{"__reduce__": "code"}], dtype=object)),
        _with(head=np.zeros((3, 3), dtype=np.float32)),
        _with(extra=np.zeros(1, dtype=np.float32)),
        _with(head_bias=np.full(OUTPUTS, np.nan, dtype=np.float32)),
        _with(head_bias=np.zeros(OUTPUTS)),
        _npz(first=np.zeros((50, 64), dtype=np.float32)),
    ],
    ids=["empty", "encrypted", "compression", "garbage", "pickle", "shape", "extra", "nan", "float64", "missing"],
)
def test_what_are_no_weights_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        unpack_weights(MLP, data)


def test_weights_of_the_largest_size_are_read_and_one_byte_more_is_not() -> None:
    small = pack_weights(MLP, drawn("mlp"))
    assert unpack_weights(MLP, small)
    with pytest.raises(ConfigError, match="at most"):
        unpack_weights(MLP, small + bytes(FILE_BYTES_MAX + 1 - len(small)))


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, first=np.zeros(FILE_BYTES_MAX, dtype=np.float32))
    assert len(buffer.getvalue()) < FILE_BYTES_MAX
    with pytest.raises(ConfigError, match="unpacks"):
        unpack_weights(MLP, buffer.getvalue())
