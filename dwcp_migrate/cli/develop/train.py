"""`dwcp-migrate train`: make the forecasters' models, from synthetic series, from traces or from this host's history.

The rule: training needs torch, which the agent does not; without it the command says how to get it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.errors import ConfigError

if TYPE_CHECKING:
    from dwcp_migrate.bandwidth.targets import Floats

MODELS = ("mlp", "lstm-small", "lstm-medium", "lstm-large")


@click.command()
@click.option(
    "--traces",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Learn from files of `time value` rows instead of synthetic series.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Learn from an agent's history in its state directory; taken only if it is better there.",
)
@click.option("--output", "directory", type=click.Path(path_type=Path, file_okay=False), help="Where the models go.")
@click.option("--model", "models", multiple=True, type=click.Choice(MODELS), help="Default: those of the agent's mix.")
@click.option(
    "--series", default=700, show_default=True, type=click.IntRange(2, 100_000), help="Number of synthetic series."
)
@click.option("--epochs", default=12, show_default=True, type=click.IntRange(1, 1000), help="Passes over the series.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64), help="Threads of torch.")
@click.option("--seed", default=1, show_default=True, help="Seed of everything that is random.")
@json_option
def command(  # noqa: PLR0913 - one parameter for each option
    *,
    traces: Path | None,
    state: Path | None,
    directory: Path | None,
    models: tuple[str, ...],
    series: int,
    epochs: int,
    threads: int,
    seed: int,
    as_json: bool,
) -> None:
    """Train the neural forecasters and what their mix begins with.

    The models that the package ships were made by `dwcp-migrate train --output DIR`.
    """
    if sum(given is not None for given in (traces, state)) > 1:
        raise click.UsageError("--traces and --state exclude each other")
    if state is None and directory is None:
        raise click.UsageError("say where the models go: --output DIR")
    try:
        from dwcp_migrate.bandwidth.training import host
        from dwcp_migrate.bandwidth.training.ensembles import TrainingEffort, synthetic_series
    except ImportError as error:
        raise ConfigError(
            f"training needs torch: {error}",
            hint="pip install 'dwcp-migrate[train]', after torch's build for CPUs if there is no GPU (see the README)",
        ) from error
    effort = TrainingEffort(models=models, epochs=epochs, threads=threads, seed=seed)
    if state is not None:
        outcome = host.learn(state, effort)
    else:
        learned = host.make(_traces(traces) if traces else synthetic_series(seed, series), effort)
        outcome = host.keep(learned, directory or Path())
    if as_json:
        click.echo(output.as_json(outcome))
        return
    rows = [(one.model, f"{one.before:.4f}", f"{one.after:.4f}", f"{one.seconds:.1f} s") for one in outcome.models]
    click.echo(output.format_table(("Model", "Loss before", "Loss after", "Time"), rows))
    click.echo(f"\n{outcome.message}")


def _traces(directory: Path) -> "list[Floats]":
    from dwcp_migrate.bandwidth.storage import model_files

    return [values for by_file in model_files.traces(directory).values() for values in by_file.values()]
