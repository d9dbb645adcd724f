"""`python -m bench`: run a suite, print figures with the machine, commit and command that they belong to."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.cli.support.output import format_table


@contextmanager
def _standard_output_kept() -> Iterator[None]:
    """Send the output of libraries to standard error: HiGHS prints a banner, and the result is one JSON object."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


@click.command()
@click.argument("suite")
@click.option("--quick", is_flag=True, help="Few bytes, one run: shows that it works, measures little.")
@click.option("--migrations", default=100, show_default=True, type=click.IntRange(1), help="How many (lab suites).")
@click.option(
    "--first",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Number of the first (lab suites).",
)
@click.option(
    "--tally",
    default="",
    type=click.Path(dir_okay=False),
    help="File of the counts so far: a run goes on (cuts, restarts, soak).",
)
@click.option(
    "--minutes", default=0.0, type=click.FloatRange(0), help="Begin no migration after that (cuts, restarts, soak)."
)
@click.option("--seed", default=1, show_default=True, help="What is drawn follows from it (lab suites, pba).")
@click.option("--traces", default="", type=click.Path(file_okay=False), help="Files of `time value` rows (pba).")
@click.option("--only", default="", help="Cases whose names begin so (acp, ass, cuts).")
@json_option
def command(*, suite: str, quick: bool, as_json: bool, traces: str, only: str, **lab: Any) -> None:
    """Run the benchmark SUITE: acp, amst, ass, contend, cuts, hde, itp, known, live, paths, pba, predict, restarts ...

    The machine should do nothing else meanwhile; suites use as many processes as the agents would.
    """
    # Before numpy is imported: its threads cost more than they bring on the small matrices of a forecast.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from bench import frame

    words = ["python", "-m", "bench", suite, *(["--quick"] if quick else [])]
    if suite in {"soak", "restarts", "predict"}:
        words += [f"--{name}={lab[name]}" for name in ("first", "migrations", "seed")]
    words += [f"--seed={lab['seed']}", *(["--traces DIR"] if traces else [])] if suite == "pba" else []
    words += [f"--only={only}"] if only else []
    words += ["--json"] if as_json else []
    options = frame.Options(quick=quick, traces=traces, only=only, **lab)
    with _standard_output_kept():
        report = frame.run(suite, options, " ".join(words))
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    click.echo(f"{report.machine}\ncommit {report.commit}, {report.command}\n")
    rows = [(row.case, row.metric, f"{row.value:.4g}", row.unit, str(row.n)) for row in report.rows]
    click.echo(format_table(("Case", "Metric", "Value", "Unit", "n"), rows))


if __name__ == "__main__":
    command()
