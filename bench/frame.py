"""The frame of all benchmark suites: their rows, the machine, commit and command of a run, and their registry.

Rule: a figure is worth something only with the machine, the commit and the command that made it: they travel with it.
A suite is a module of this package with `rows(options) -> list[Row]`; it is imported when it is run.
"""

import os
import platform
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.errors import NotFoundError

SUITES: Final = {
    "amst": "channels, set-up, segment sizes over loopback mTLS, and pass-through beside it",
    "ass": "commits, elections and broadcast of the shared state, each replica a process of its own",
    "live": "a stream through two data processes on loopback, beside a plain connection and a relay",
    "known": "what a page store at the destination spares, in the lab; its index and statement at 64 GiB (root)",
    "hde": "codecs on zeros, text, guest memory and a mix",
    "acp": "the PBFT group: latency and throughput, conflicts, certificates, quorum checks",
    "pba": "forecasts on synthetic series and traces, their cost, the allocator in virtual time",
    "contend": "four migrations at once over one link of the lab, a deadline on one (root)",
    "cuts": "migrations in the lab whose link is cut for 10 to 120 s, by phase and libvirt's keepalive (root)",
    "predict": "predictions against migrations over varied links and guests in the lab (root)",
    "itp": "placement: latencies, local optima, accuracy against proven and planted optima",
    "watch": "a month of a fleet under the service that relieves it, and loads out of libvirt's bulk statistics",
    "restarts": "migrations in a row in the lab while agents are killed and stopped (root)",
    "plane": "parts of the data plane: the gate of many connections, classification, leaving the link",
    "paths": "two ways between two hosts at once; one of them cut, crawling or flapping (root)",
    "matrix": "all ways to migrate over links from slow to none, slice by slice, in the lab (root)",
    "soak": "migrations in a row in the lab while channels are killed and the link is cut (root)",
}
"""Name of the module and a line on its measurement."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure.

    Attributes:
        case: what was varied, for instance `channels=8`.
        metric: what was measured, for instance `throughput`.
        value: median of `n` runs unless the method says otherwise.
        unit: of the value.
        n: runs behind it.
        method: one sentence: how it was measured.
    """

    case: str
    metric: str
    value: float
    unit: str
    n: int
    method: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How thoroughly to measure.

    Attributes:
        quick: an eighth of the bytes and one run of each: shows that it works, measures little.
        migrations: of the suites soak, restarts and predict.
        first: number of the first migration or group (predict): what is done follows from the seed and that.
        tally: file of what was counted so far (cuts, restarts, soak): that run goes on; empty keeps none.
        minutes: after which no further migration is begun (cuts, restarts, soak); 0 is no bound.
        seed: of what the suites soak, restarts, predict and pba draw.
        only: cases whose names begin so (acp, ass, cuts; ways of live); empty is all that take no more than minutes.
        traces: directory of `time value` files for the suite pba; empty without.
    """

    quick: bool = False
    migrations: int = 100
    first: int = 0
    tally: str = ""
    minutes: float = 0.0
    seed: int = 1
    only: str = ""
    traces: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `python -m bench SUITE --json` prints."""

    machine: str
    commit: str
    command: str
    rows: list[Row]


def run(suite: str, options: Options, command: str) -> Report:
    """Run a suite.

    Raises:
        NotFoundError: no such suite.
    """
    if suite not in SUITES:
        raise NotFoundError(f"no suite {suite}", hint=f"one of {', '.join(SUITES)}")
    module = import_module(f"bench.suites.{suite}")
    return Report(machine=machine(), commit=commit(), command=command, rows=module.rows(options))


def machine() -> str:
    """Describe this machine: CPU, usable cores, kernel, Python."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}"


def commit() -> str:
    """Name the checkout's commit, `-dirty` if the package was changed; the version where there is no checkout."""
    package = Path(__file__).parents[1]
    git = ["git", "-C", str(package)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", str(package)], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        from importlib.metadata import version

        return version("dwcp-migrate")
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")
