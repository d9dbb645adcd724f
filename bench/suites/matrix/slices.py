"""Suite `matrix`: every way to migrate a lab guest, over links from 32 Mbit/s to none at all, slice by slice.

    slice   <rate in Mbit/s, 0 is no limit>/<round trip in ms>/<loss in %>/<congestion control>/<guest>

Rule: a slice is played as a whole, so that its ratios come from one lab and one hour; what was played is kept in
`results/matrix.json` with its commit, and playing it again replaces it. Without a limit the hosts are joined by a veth
pair beside the relay: the link then is the machine's memory.

    time          from the command to its end, as the operator waits
    utilisation   bytes on the wire over what the link carries in all of that time; without a limit neither is counted
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from bench.frame import Options, Row, commit, machine
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.lab.arms import ACCELERATED, MULTIFD_ZSTD, STOCK, Arm, ArmResult, run_arm
from dwcp_migrate.lab.guest import GuestOptions
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.wan import WanLink

RESULTS: Final = Path(__file__).parents[2] / "results" / "matrix.json"
MULTIFD_4: Final = Arm("multifd-4", ("--parallel", "--parallel-connections", "4"))
ACCELERATED_4: Final = replace(ACCELERATED, name="accelerated-multifd-4", flags=MULTIFD_4.flags)
ARMS: Final = (STOCK, MULTIFD_4, MULTIFD_ZSTD, ACCELERATED)
IN_CLEAR: Final = {"policy": {"step_aside": "auto"}}


def _again(arm: Arm) -> Arm:
    """The same once more, to the same peer: by then the agents know the link."""
    return replace(arm, name=f"{arm.name}-again", is_first=False)


def _in_clear(arm: Arm) -> Arm:
    """The same by agents that may let go in clear what QEMU sends in clear; each `again` follows its first."""
    return replace(arm, name=f"{arm.name}-in-clear", changes=IN_CLEAR)


UNLIMITED_ARMS: Final = (
    *ARMS,
    _again(ACCELERATED),
    *(each for arm in (ACCELERATED, ACCELERATED_4) for each in (_in_clear(arm), _again(_in_clear(arm)))),
)
UNLIMITED_BYTES_PER_S: Final = 1e9
"""What the relay is set to where the veth pair carries everything."""
GUESTS: Final = {
    "pages": GuestOptions(memory_mib=256, fill_mib=160),
    "large": GuestOptions(memory_mib=1280, fill_mib=1024),
    "idle": GuestOptions(memory_mib=512, fill_mib=300, dirty_pages_per_s=0),
}
SLICES: Final = ("200/40/0.1/cubic/pages", "1000/0.2/0/cubic/idle", "0/0.2/0/cubic/large")
"""What is played where none is named."""
RUNS: Final = {"0": 3}
"""Of a rate, else one: a stock migration over a lossy link takes minutes."""
METHOD: Final = "virsh migrate in the lab, from the command to its end; all arms in one run"


class Slice(msgspec.Struct, frozen=True):
    """What was played.

    Attributes:
        name: see the head.
        commit: of the code.
        machine: that it ran on.
        runs: results, arm by arm, run after run.
    """

    name: str
    commit: str
    machine: str
    runs: list[ArmResult]


class Matrix(msgspec.Struct, frozen=True):
    """All slices that were played, each once."""

    slices: list[Slice] = []


def rows(options: Options) -> list[Row]:
    """Play the slices whose names begin with `only`, or the default ones; returns the rows of all that there are.

    Raises:
        LabError: not root, or the lab does not come up.
        NotFoundError: `only` is no slice.
    """
    for name in (options.only,) if options.only else SLICES:
        keep(play(name, runs=1 if options.quick else RUNS.get(name.partition("/")[0], 1)))
    return [row for one in load().slices for row in slice_rows(one)]


def play(name: str, *, runs: int) -> Slice:
    """Play one slice."""
    rate, link, congestion_control, guest = parse(name)
    with Lab.up(LabOptions(name="matrix", link=link, congestion_control=congestion_control, owned=True)) as lab:
        if not rate:
            lab.join_directly()
        results = [
            run_arm(lab, arm, guest, say=lambda text: print(text, file=sys.stderr))
            for _ in range(runs)
            for arm in (ARMS if rate else UNLIMITED_ARMS)
        ]
    return Slice(name, commit(), machine(), results)


def parse(name: str) -> tuple[float, WanLink, str, GuestOptions]:
    """Read a slice's name: rate in bytes a second (0 for none), link, congestion control, guest.

    Raises:
        NotFoundError: it is none.
    """
    try:
        rate, rtt, loss, congestion_control, guest = name.split("/")
        bytes_per_s = float(rate) * 125_000
        link = WanLink(bytes_per_s or UNLIMITED_BYTES_PER_S, float(rtt) / 2000, float(loss) / 100)
        return bytes_per_s, link, congestion_control, GUESTS[guest]
    except (ValueError, KeyError) as error:
        raise NotFoundError(f"no slice {name}", hint=f"for instance {SLICES[0]}") from error


def load() -> Matrix:
    """What was played so far."""
    return msgspec.json.decode(RESULTS.read_bytes(), type=Matrix) if RESULTS.exists() else Matrix()


def keep(played: Slice) -> None:
    """Keep a slice in the place of the one that was played before, and draw all anew."""
    from bench.suites.matrix.report import plot, table

    kept = [one for one in load().slices if one.name != played.name]
    matrix = Matrix(sorted([*kept, played], key=lambda one: one.name))
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(matrix), indent=2) + b"\n")
    RESULTS.with_suffix(".md").write_text(table(matrix.slices))
    RESULTS.with_suffix(".svg").write_text(plot(matrix.slices))


def summary(one: Slice) -> dict[str, dict[str, float]]:
    """Medians by arm and metric."""
    arms = list(dict.fromkeys(result.arm for result in one.runs))
    rate = parse(one.name)[0]
    times = {arm: [result.time_s for result in one.runs if result.arm == arm] for arm in arms}
    best_stock = [min(of_run) for of_run in zip(*(times[arm] for arm in arms if "accelerated" not in arm), strict=True)]
    summary: dict[str, dict[str, float]] = {}
    for arm in arms:
        results = [result for result in one.runs if result.arm == arm]
        wire_bytes = statistics.median(result.wire_bytes for result in results)
        figures = {
            "time_s": statistics.median(times[arm]),
            "downtime_ms": float(statistics.median(result.downtime_ms for result in results)),
            "times_faster_than_stock": _ratio(times["stock"], times[arm]),
            "times_faster_than_best_stock": _ratio(best_stock, times[arm]),
        }
        if rate:
            figures["wire_bytes"] = float(wire_bytes)
            figures["utilisation_percent"] = 100 * wire_bytes / rate / figures["time_s"]
        summary[arm] = figures
    return summary


def _ratio(longer: list[float], shorter: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(longer, shorter, strict=True))


def slice_rows(one: Slice) -> list[Row]:
    """The rows of one slice."""
    units = {"time_s": "s", "downtime_ms": "ms", "wire_bytes": "B", "utilisation_percent": "%"}
    return [
        Row(
            case=f"matrix/{one.name}/{arm}",
            metric=metric,
            value=value,
            unit=units.get(metric, "1"),
            n=sum(result.arm == arm for result in one.runs),
            method=f"{METHOD}; commit {one.commit}",
        )
        for arm, figures in summary(one).items()
        for metric, value in figures.items()
    ]
