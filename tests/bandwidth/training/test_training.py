"""Real training, small: seconds on the CPU build of torch."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dwcp_migrate.bandwidth.forecasting import lifecycle, priors, synthetic
from dwcp_migrate.bandwidth.forecasting.ensemble import DEFAULT_MODELS, EWMA_DEFAULT, Ensemble
from dwcp_migrate.bandwidth.forecasting.panel import Prior
from dwcp_migrate.bandwidth.forecasting.weights import MODELS
from dwcp_migrate.bandwidth.storage import model_files
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.bandwidth.storage.series_store import Store
from dwcp_migrate.bandwidth.targets import TARGETS, Floats
from dwcp_migrate.bandwidth.training import host
from dwcp_migrate.bandwidth.training.ensembles import HALF_SERIES_MIN, TrainingEffort, synthetic_series, train_ensemble
from dwcp_migrate.bandwidth.training.examples import SERIES_SAMPLES_MIN, sequences, windows
from dwcp_migrate.bandwidth.training.fit import TrainingPlan, train
from dwcp_migrate.cli import run
from dwcp_migrate.errors import ConfigError, NotFoundError

SERIES = synthetic_series(3, 24)


@pytest.mark.parametrize("name", ["mlp", "lstm-small"])
def test_a_model_learns_and_does_so_the_same_way_again(name: str) -> None:
    plan = TrainingPlan(epochs=2, batch=256 if name == "mlp" else 8, seed=7)
    trained = train(MODELS[name], SERIES, plan)
    assert min(trained.losses[1:]) < 0.9 * trained.losses[0]
    assert {key: array.shape for key, array in trained.weights.items()} == MODELS[name].shapes()
    again = train(MODELS[name], SERIES, plan)
    for key, array in trained.weights.items():
        np.testing.assert_array_equal(array, again.weights[key])


def test_training_goes_on_from_weights_and_never_ends_worse() -> None:
    start = model_files.load(("mlp",)).weights["mlp"]
    trained = train(MODELS["mlp"], SERIES, TrainingPlan(epochs=1), start)
    assert trained.losses[0] < 0.12  # the shipped weights know such series
    assert min(trained.losses) <= trained.losses[0]


def test_series_that_are_just_long_enough_are_learned_from_and_shorter_ones_are_not() -> None:
    draw = np.random.default_rng(1)
    short, enough = np.ones(SERIES_SAMPLES_MIN - 1), np.ones(SERIES_SAMPLES_MIN)
    assert len(windows([enough], draw, 100).inputs) >= 1
    assert len(sequences([enough], 10, 400).inputs) == 1
    with pytest.raises(ValueError, match="no series"):
        windows([short], draw, 100)
    with pytest.raises(ValueError, match="no series"):
        sequences([short], 10, 400)
    with pytest.raises(ValueError, match="two series"):
        train(MODELS["mlp"], [enough, short], TrainingPlan(epochs=1))


def test_the_ewma_is_tuned_to_its_series() -> None:
    draw = np.random.default_rng(2)
    noise = [10 + draw.normal(0, 1, 300) for _ in range(3)]
    walk = [100 + np.cumsum(draw.normal(0, 1, 300)) for _ in range(3)]
    assert (priors.tune_ewma(noise) <= 0.1).all()
    assert priors.tune_ewma(walk)[0] >= 0.65


def test_of_few_series_the_networks_are_judged_on_those_that_they_did_not_learn_by_heart() -> None:
    draw = np.random.default_rng(5)
    series = [synthetic.volatile(draw, 220) for _ in range(2 * HALF_SERIES_MIN)]
    told: list[str] = []
    ensemble = train_ensemble(series, lambda name, _: told.append(name), TrainingEffort(models=("mlp",), epochs=40))
    proud = priors.learn(Ensemble(ensemble.weights, ensemble.ewma).experts, series)
    assert told == ["mlp"]
    assert ensemble.prior is not None
    assert ensemble.prior.losses[-1].mean() > 1.1 * proud.losses[-1].mean()


def test_a_prior_survives_its_file_and_a_foreign_one_is_refused() -> None:
    ensemble = model_files.load()
    assert ensemble.prior is not None
    names = ensemble.experts(1).names
    data = priors.pack(ensemble.prior, ensemble.ewma, names)
    prior, ewma, read = priors.unpack(data)
    assert read == names
    np.testing.assert_array_equal(prior.losses, ensemble.prior.losses)
    np.testing.assert_array_equal(prior.trust, ensemble.prior.trust)
    np.testing.assert_array_equal(ewma, ensemble.ewma)
    misfit = priors.pack(replace(prior, bands=prior.bands[:, :2]), ensemble.ewma, names)
    unstretched = priors.pack(replace(prior, stretch=prior.stretch[:2]), ensemble.ewma, names)
    untrusted = priors.pack(replace(prior, trust=0 * prior.trust), ensemble.ewma, names)
    for wrong in (data[:200], b"", misfit, unstretched, untrusted):
        with pytest.raises(ConfigError):
            priors.unpack(wrong)


def test_models_are_promoted_rolled_back_and_never_half_there(tmp_path: Path) -> None:
    shipped = model_files.load()
    mine = Ensemble(shipped.weights, np.full(len(TARGETS), 0.123), shipped.prior)
    newer = Ensemble(shipped.weights, np.full(len(TARGETS), 0.456), shipped.prior)
    assert model_files.replaced(tmp_path) is None
    model_files.promote(tmp_path, mine)
    model_files.promote(tmp_path, newer)
    assert model_files.in_use(tmp_path).ewma[0] == 0.456
    model_files.roll_back(tmp_path)
    assert model_files.in_use(tmp_path).ewma[0] == 0.123
    model_files.roll_back(tmp_path)
    assert model_files.in_use(tmp_path).ewma[0] == shipped.ewma[0]


def test_models_that_cannot_be_read_leave_the_shipped_ones_in_use(tmp_path: Path) -> None:
    model_files.promote(tmp_path, model_files.load())
    (tmp_path / "models" / "current" / "mlp.npz").write_bytes(b"garbage")
    assert model_files.in_use(tmp_path).weights.keys() == set(DEFAULT_MODELS)
    plain, why = model_files.load_or_plain(tmp_path / "nowhere")
    assert not plain.weights
    assert "nowhere" in why
    with pytest.raises(NotFoundError):
        model_files.load(directory=tmp_path / "nowhere")


def history(state: Path, make: str, count: int = 6) -> None:
    draw = np.random.default_rng(4)
    store = Store(state / model_files.SERIES_DIRECTORY)
    for number in range(count):
        for value in synthetic.CLASSES[make](draw, lifecycle.SAMPLES_MIN + 160):
            store.add(Key("link", "rate", f"hv{number}"), float(value), 0.0)
    store.flush()


def test_a_host_learns_from_its_history_and_keeps_only_what_is_better(tmp_path: Path) -> None:
    history(tmp_path, "periodic")
    outcome = host.learn(tmp_path, TrainingEffort(models=("mlp",), epochs=6))
    assert outcome.taken == (outcome.loss < outcome.loss_before * (1 - lifecycle.GAIN_MIN))
    assert outcome.taken  # one period, over and over: nothing is learned more easily
    assert (tmp_path / "models" / "current" / "mlp.npz").is_file()


def test_a_model_that_got_worse_is_rolled_back(tmp_path: Path) -> None:
    history(tmp_path, "volatile")
    shipped = model_files.load()
    spoilt = {name: {key: 0 * array for key, array in shipped.weights[name].items()} for name in shipped.weights}
    prior = shipped.prior
    assert prior is not None
    model_files.promote(
        tmp_path, Ensemble(spoilt, np.full(len(TARGETS), 1.0), _believing_in_the_last(prior.losses, prior.bands))
    )
    assert "rolled back" in host.look_back(tmp_path)
    assert model_files.in_use(tmp_path).ewma[0] == shipped.ewma[0]
    assert host.look_back(tmp_path) == ""


def _believing_in_the_last(losses: Floats, bands: Floats) -> Prior:
    wrong = np.full_like(losses, 4.0)
    wrong[-1] = 0.01
    return Prior(bands, wrong, np.zeros((len(TARGETS), 2)), np.full(len(TARGETS), 100.0))


def test_too_little_history_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds 0 series"):
        host.learn(tmp_path, TrainingEffort(epochs=1))
    assert host.look_back(tmp_path) == ""


def test_traces_are_read_by_sets_and_what_are_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lte").mkdir()
    (tmp_path / "lte" / "one").write_text("1.0 5\n0.0 4\n")
    assert list(model_files.traces(tmp_path)["lte"]["one"]) == [4, 5]
    for wrong in ("a b\n", "1 2 3\n", "1 -2\n", "1 nan\n"):
        (tmp_path / "lte" / "one").write_text(wrong)
        with pytest.raises(ConfigError):
            model_files.traces(tmp_path)
    (tmp_path / "lte" / "one").unlink()
    with pytest.raises(NotFoundError):
        model_files.traces(tmp_path)


def test_the_command_trains_and_says_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "train",
        "--series",
        "14",
        "--epochs",
        "1",
        "--model",
        "mlp",
        "--json",
        "--output",
        str(tmp_path / "out"),
    ]
    assert run(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["taken"]
    assert [one["model"] for one in said["models"]] == ["mlp"]
    assert model_files.load(("mlp",), tmp_path / "out").weights["mlp"]["head"].shape == MODELS["mlp"].shapes()["head"]


@pytest.mark.parametrize("arguments", [["train"], ["train", "--traces", "{}", "--state", "{}"]])
def test_the_command_wants_to_know_where_from_and_where_to(arguments: list[str], tmp_path: Path) -> None:
    assert run([argument.format(tmp_path) for argument in arguments]) == 2


def test_the_plain_ensemble_needs_no_file() -> None:
    assert Ensemble({}, EWMA_DEFAULT).panel(2).names[0] == "last"
