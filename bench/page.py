"""Page of benchmark figures: what to expect, and each row of the specification beside ours, from the committed results.

    python -m bench.page        # writes docs/benchmarks.md and its plots, docs/images/bench-*.svg

A figure is taken from `bench/results/SUITE.json` by case and metric, with the machine, commit and command of that file.
A row without a figure says why there is none. A test holds page and plots to the results.
"""

import json
import textwrap
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.plots import Bar, draw_bars
from bench.specification import PARTS, Figure, Line
from bench.suites.matrix.slices import load, summary

WHOLE_FROM: Final = 1000.0
"""Figures from here on are written without a fraction."""

RESULTS: Final = Path(__file__).parent / "results"
DOCS: Final = Path(__file__).parents[1] / "docs"

UNITS: Final = {"1": "", "percent": "%", "percent of a core": "% of a core", "1/s": "/s"}

HEAD: Final = """# Benchmarks

What an operator may expect, then each row of the specification beside ours; generated from `bench/results/` by
`python -m bench.page`. What a suite measures, and how, is in [bench/README.md](../bench/README.md). Figures are medians on
machines of two virtual cores, shared with others, unless said otherwise. All links are emulated on one machine and guests run
without KVM: **no figure here is from two physical hosts or a real WAN**, and none from a guest of more than 1 GiB.
`dwcp-migrate check PEER` and a migration of your own say what yours get.
"""

NOT_TO_EXPECT: Final = """### What not to expect

- **A gain where the link is faster than the agents.** There QEMU's connections leave the pipeline, each in TLS of its own;
  encryption still takes cores, and where those are few, QEMU alone in clear is faster (the last line above).
  `policy.step_aside = "auto"` lets such migrations go in clear.
- **A gain at 1 Gbit/s where cores are few.** Two cores that both hosts, their guests and the link's relay share do not fill
  such a link, and the agents do not see that it is not the link that holds them up: QEMU alone is faster there. `dwcp-migrate
  check PEER` says what this host's link carries, and `accelerate = false` in `[[peers]]` leaves a peer's migrations alone.
- **A small first pass of memory that is compressed or encrypted already** (`--compressed`, `--tls`, caches of media or of
  encrypted files): many channels, nothing to compress.
- **Less CPU.** What QEMU would have compressed costs about as much here; what it would have sent as it is costs more
  ([sizing.md](sizing.md)).
- **Disks of `--copy-storage-*` as small as memory**: they are compressed, not known.
- **Numbers for XBZRLE and postcopy beside the agents**: not measured ([comparison.md](comparison.md)).
"""


class Expected(NamedTuple):
    """What an operator may expect where, and the result file that says so."""

    where: str
    what: str
    suite: str


def result(suite: str) -> dict[str, Any]:
    """Read a suite's committed result."""
    found: dict[str, Any] = json.loads((RESULTS / f"{suite}.json").read_text())
    return found


def row(wanted: Figure) -> dict[str, Any]:
    """Find the row of a result file that holds a figure.

    Raises:
        LookupError: the result file has no such case and metric.
    """
    for one in result(wanted.suite)["rows"]:
        if (one["case"], one["metric"]) == (wanted.case, wanted.metric):
            found: dict[str, Any] = one
            return found
    raise LookupError(f"{wanted.suite}.json has no {wanted.case} {wanted.metric}")


def value(suite: str, case: str, metric: str) -> float:
    """Return one of our figures as a number."""
    return float(row(Figure(suite, case, metric))["value"])


def figure(wanted: Figure) -> str:
    """Write one of our figures with its unit.

    Raises:
        LookupError: the result file has no such case and metric.
    """
    one = row(wanted)
    unit = UNITS.get(one["unit"], one["unit"])
    number = f"{one['value']:,.3g}" if abs(one["value"]) < WHOLE_FROM else f"{one['value']:,.0f}"
    return f"{number}{unit}" if unit.startswith("/") else f"{number} {unit}".strip()


def page() -> str:
    """Write the whole page."""
    parts = [HEAD, _demo(), _expectations(), NOT_TO_EXPECT]
    for heading, (words, lines) in PARTS.items():
        parts.append(f"## {heading}\n\n{_wrapped(words)}\n")
        if heading.startswith("AMST"):
            parts.append(_picture("bench-channels", "Throughput by channels"))
        rows = ["| row | specification | ours | case |", "|---|---|---|---|"]
        parts.append("\n".join([*rows, *map(_row, lines)]) + "\n")
        parts.append(_methods(lines))
        suites = sorted({line.ours.suite for line in lines if isinstance(line.ours, Figure)})
        parts.extend(_origin(suite) for suite in suites)
    return "\n".join(parts)


def plots() -> dict[str, str]:
    """Draw the page's plots, by their file's name without its end."""
    names = {"stock": "stock", "stock-multifd-zstd": "multifd + zstd, 4", "accelerated": "agents"}
    demo = result("demo")
    arms = [
        Bar(names[arm["arm"]], arm["time_s"], f"{arm['time_s']:.1f} s", arm["arm"] == "accelerated")
        for arm in demo["arms"]
    ]
    channels = [
        Bar(f"{count} channels", speed, f"{speed:,.0f} MB/s", is_ours=True)
        for count in (1, 8, 32, 128, 512)
        for speed in [value("amst", f"channels={count}", "throughput")]
    ]
    against = result("hde-against-qemu")
    shares = {
        "bytes, first pass": against["first_pass"]["bytes_ratio"],
        "bytes, sent again": against["resent"]["bytes_ratio"],
        "CPU, encoder": against["cpu_s_per_gb"]["encode_ratio"],
        "CPU, decoder": against["cpu_s_per_gb"]["decode_ratio"],
    }
    whole = [Bar("multifd + zstd 1", 1.0, "1")]
    whole += [Bar(name, share, f"{share:.2f}", is_ours=True) for name, share in shares.items()]
    return {
        "bench-demo": draw_bars("Time of a migration, 200 Mbit/s, 40 ms, 0.1% loss (shorter is better)", arms),
        "bench-against-qemu": draw_bars(
            "Agents against QEMU's own multifd zstd, which is 1 (shorter is better)", whole
        ),
        "bench-channels": draw_bars("One sender, one receiver, TLS 1.3, loopback (longer is better)", channels),
    }


def _row(line: Line) -> str:
    if isinstance(line.ours, str):
        return f"| {line.what} | {line.given} | none: {line.ours} | |"
    return f"| {line.what} | {line.given} | {figure(line.ours)} | `{line.ours.case}` {line.ours.metric} |"


def _methods(lines: tuple[Line, ...]) -> str:
    """Say how each figure was measured; figures of one method stand together."""
    methods: dict[str, list[str]] = {}
    for line in lines:
        if isinstance(line.ours, Figure):
            methods.setdefault(row(line.ours)["method"], []).append(line.what)
    told = [f"- {'; '.join(rows)}: {method}." for method, rows in methods.items()]
    return "How:\n\n" + "\n".join(textwrap.fill(one, 120, subsequent_indent="  ") for one in told) + "\n"


def _demo() -> str:
    found = result("demo")
    link = found["link"]
    megabits = link["rate_bytes_per_s"] * 8 / 1e6
    rows = [
        "## The demo\n",
        _wrapped(
            f"One guest of {found['guest']['memory_mib']} MiB over {megabits:.0f} Mbit/s, {link['delay_s'] * 2e3:.0f} ms "
            f"round trip, {link['loss']:.1%} loss; commit {found['commit']}, `make demo`. Use of the link is what crossed "
            "it, divided by what it could have carried."
        )
        + "\n",
        _picture("bench-demo", "Time of a migration"),
        "| command | time | downtime | on the wire | use of the link |",
        "|---|---|---|---|---|",
    ]
    for arm in found["arms"]:
        used = arm["wire_bytes"] / (arm["time_s"] * link["rate_bytes_per_s"])
        words = arm["command"] + (" (accelerated)" if arm["arm"] == "accelerated" else "")
        wire = f"{arm['wire_bytes'] / 2**20:.0f} MiB"
        rows.append(f"| `{words}` | {arm['time_s']:.1f} s | {arm['downtime_ms']:,} ms | {wire} | {used:.0%} |")
    return "\n".join(rows) + "\n"


def _expectations() -> str:
    """Say what to expect of links and guests of which kind, each with the figure that says so."""
    expected = [*_of_one_migration(), *_of_known_pages(), *_of_paths(), *_of_fast_links(), *_of_many()]
    table = ["| where | what | result |", "|---|---|---|"]
    table += [f"| {one.where} | {one.what} | `{one.suite}.json` |" for one in expected]
    suites = ("hde-against-qemu", "known", "paths", "contend", "predict", "soak", "live")
    picture = _picture("bench-against-qemu", "Agents against QEMU's own multifd zstd")
    return "\n".join(["## What to expect\n", *table, "", picture, *map(_origin, suites)])


def _of_one_migration() -> list[Expected]:
    """Figures of one migration beside stock and beside QEMU's own compression."""
    demo = {arm["arm"]: arm for arm in result("demo")["arms"]}
    stock, best, ours = (demo[arm]["time_s"] for arm in ("stock", "stock-multifd-zstd", "accelerated"))
    against, resent = result("hde-against-qemu"), value("hde", "content=resent codec=zstd-1", "ratio")
    cpu = against["cpu_s_per_gb"]
    return [
        Expected(
            "a link of some hundred Mbit/s, tens of ms, some loss",
            f"{stock / ours:.0f} times faster than plain, {best / ours:.1f} times than QEMU's multifd with zstd",
            "demo",
        ),
        Expected(
            "a guest that writes the same pages again",
            f"of {1 / resent:,.0f} such bytes one crosses the wire where few words of a page change (made memory)",
            "hde",
        ),
        Expected(
            "a guest with real programs",
            f"{against['first_pass']['bytes_ratio']:.2f} of the bytes of QEMU's zstd on the first pass, "
            f"{against['resent']['bytes_ratio']:.2f} of those of pages sent again",
            "hde-against-qemu",
        ),
        Expected(
            "CPU beside QEMU's own zstd",
            f"{cpu['encode_ratio']:.2f} of it on the source, {cpu['decode_ratio']:.2f} on the destination",
            "hde-against-qemu",
        ),
    ]


def _of_known_pages() -> list[Expected]:
    """Figures of migrations whose destination has pages of the guest already."""
    back, again = (value("known", f"known/pages/{case}", "fewer_bytes_than_cold") for case in ("return", "retry"))
    sooner = value("known", "known/pages/cold", "time_s") / value("known", "known/pages/return", "time_s")
    return [
        Expected(
            "the way back, with a page store at both hosts",
            f"{back:.0f} times fewer bytes than without, {sooner:.1f} times sooner",
            "known",
        ),
        Expected(
            "another try after a migration that was cancelled at 80 %",
            f"{again:.1f} times fewer bytes than the whole",
            "known",
        ),
    ]


def _of_paths() -> list[Expected]:
    """Figures of two networks between two hosts."""
    over = {case: value("paths", f"paths/{case}", "over_one") for case in ("two", "cut", "crawl", "flap")}
    return [
        Expected("two networks of 100 Mbit/s between two hosts", f"{over['two']:.2f} times one of them", "paths"),
        Expected(
            "one of those two cut, down to 1 % of its rate, or going and coming every three seconds",
            f"{over['cut']:.2f}, {over['crawl']:.2f} and {over['flap']:.2f} times what the other one carries by itself",
            "paths",
        ),
    ]


def _of_fast_links() -> list[Expected]:
    """Figures of links that two cores for both hosts, their guests and the link itself cannot fill."""
    found = {one.name: summary(one) for one in load().slices}
    unlimited, gigabit = found["0/0.2/0/cubic/large"], found["1000/0.2/0/cubic/idle"]
    stock = unlimited["stock"]["time_s"]
    first, again, clear = (
        unlimited[f"accelerated{arm}"]["time_s"] / stock for arm in ("", "-again", "-in-clear-again")
    )
    return [
        Expected(
            "a link without a limit, guest of 1 GiB, two cores for everything",
            f"**{first:.2f} times stock's time** the first time, {again:.2f} from then on, {clear:.2f} where it may go in "
            "clear",
            "matrix",
        ),
        Expected(
            "1 Gbit/s, guest of 512 MiB, two cores for everything",
            f"**{gigabit['accelerated']['time_s'] / gigabit['stock']['time_s']:.2f} times stock's time**, "
            f"{gigabit['accelerated']['time_s'] / gigabit['stock-multifd-zstd']['time_s']:.2f} times that of QEMU's multifd "
            "with zstd",
            "matrix",
        ),
    ]


def _of_many() -> list[Expected]:
    """Figures of links that are shared, predicted, broken, or faster than the agents."""
    shared, alone = "contend/4/shared", "contend/4/left to TCP"
    predicted, disturbed, restarted = "seed=1 first=0", "seed=11 first=0", "seed=11 first=0"
    return [
        Expected(
            "four migrations at once on one link",
            f"they end after {value('contend', shared, 'mean_end'):.0f} s on average where the agents share it, "
            f"{value('contend', alone, 'mean_end'):.0f} s where TCP does",
            "contend",
        ),
        Expected(
            "a prediction before the start",
            f"off by {value('predict', predicted, 'median_error_percent'):.0f} % in the median; "
            f"{value('predict', predicted, 'interval_coverage_percent'):.0f} % within its interval",
            "predict",
        ),
        Expected(
            "links that break, channels that die",
            f"{value('soak', disturbed, 'migrations'):.0f} migrations disturbed {value('soak', disturbed, 'cuts'):.0f} times by a "
            f"cut link and {value('soak', disturbed, 'channels killed'):,.0f} times by a killed channel: "
            f"{value('soak', disturbed, 'failed'):.0f} failed",
            "soak",
        ),
        Expected(
            "agents that are killed and stopped",
            f"in each of {value('restarts', restarted, 'migrations'):.0f} migrations an agent ended and came back: "
            f"{value('restarts', restarted, 'lost'):.0f} lost",
            "restarts",
        ),
        Expected(
            "a link faster than the agents (loopback)",
            f"**{value('live', 'live/first/auto-tls', 'time_over_stock'):.1f} to "
            f"{value('live', 'live/resent/auto-tls', 'time_over_stock'):.1f} times the time** of a plain connection in "
            f"clear, {value('live', 'live/first/auto-tls-start', 'time_over_stock'):.1f} from the second migration on; "
            f"{value('live', 'live/first/auto', 'time_over_stock'):.1f} on the channels",
            "live",
        ),
    ]


def _picture(name: str, words: str) -> str:
    return f"![{words}](images/{name}.svg)\n"


def _origin(suite: str) -> str:
    found = result(suite)
    command = found["command"].replace("dwcp-migrate bench", "python -m bench")  # as it is spelled now
    return f"`{suite}.json`: {found['machine']}; commit {found['commit']}; `{command}`.\n"


def _wrapped(words: str) -> str:
    return textwrap.fill(words, 120)


def main() -> None:
    """Write page and plots."""
    (DOCS / "benchmarks.md").write_text(page())
    for name, drawn in plots().items():
        (DOCS / f"images/{name}.svg").write_text(drawn)


if __name__ == "__main__":
    main()
