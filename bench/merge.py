"""`python -m bench.merge SUITE TALLY...`: one report of the slices of a run that were played beside each other.

The rule: slices are counted together only where no migration is in two of them; what made each is named in the report.
"""

import json
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec

from bench import frame
from dwcp_migrate.errors import ConfigError


def merged(tallies: list[dict[str, Any]]) -> dict[str, Any]:
    """Count tallies together: counters and lists add up, tables are united, of numbers the largest holds.

    Raises:
        ConfigError: they are of different seeds, or share a migration.
    """
    runs = [dict(pair.split("=") for pair in tally["run"].split()) for tally in tallies]
    if len({run["seed"] for run in runs}) != 1:
        raise ConfigError("the tallies are of different seeds", hint="merge slices of one run")
    done: set[int] = set()
    for run, tally in zip(runs, tallies, strict=True):
        first, count = int(run["first"]), tally["counts"].get("migrations", 0)
        mine = set(range(first, first + count))
        if done & mine:
            raise ConfigError(f"migration {min(done & mine)} is in two tallies", hint="leave one of them out")
        done |= mine
    total: dict[str, Any] = {"counts": Counter()}
    for tally in tallies:
        for name, value in tally.items():
            if name == "counts":
                total["counts"].update(value)
            elif isinstance(value, list):
                total[name] = [*total.get(name, []), *value]
            elif isinstance(value, dict):
                total[name] = {**total.get(name, {}), **value}
            elif name != "run":
                total[name] = max(total.get(name, 0), value)
    return {**total, "run": f"seed={runs[0]['seed']} first={min(done, default=0)}"}


@click.command()
@click.argument("suite", type=click.Choice(["restarts", "soak"]))
@click.argument("tallies", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(suite: str, tallies: tuple[Path, ...]) -> None:
    """Print the report of SUITE over TALLIES as JSON."""
    total = merged([json.loads(path.read_bytes()) for path in tallies])
    rows = import_module(f"bench.suites.{suite}").rows_of(total.pop("run"), total)
    seed = rows[0].case.split()[0].replace("=", " ") if rows else ""
    words = f"python -m bench {suite} --{seed} --tally FILE --minutes M, {len(tallies)} slices beside each other"
    report = frame.Report(machine=frame.machine(), commit=frame.commit(), command=words, rows=rows)
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


if __name__ == "__main__":
    command()
