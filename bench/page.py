"""Page of benchmark figures: each row of the specification beside ours, from the committed results.

    python -m bench.page > docs/benchmarks.md

A figure is taken from `bench/results/SUITE.json` by case and metric, with the machine, commit and command of that file.
A row without a figure says why there is none. A test holds the page to the results.
"""

import json
import textwrap
from pathlib import Path
from typing import Any, Final, NamedTuple

WHOLE_FROM: Final = 1000.0
"""Figures from here on are written without a fraction."""

RESULTS: Final = Path(__file__).parent / "results"


class Figure(NamedTuple):
    """One of our figures, by its place in a result file."""

    suite: str
    case: str
    metric: str


class Line(NamedTuple):
    """One row of the specification.

    Attributes:
        what: the row.
        given: the specification's figure.
        ours: our figures, or the reason why there is none.
    """

    what: str
    given: str
    ours: tuple[Figure, ...] | str


def _amst(case: str, metric: str = "throughput") -> tuple[Figure, ...]:
    return (Figure("amst", case, metric),)


PARTS: Final[dict[str, tuple[str, tuple[Line, ...]]]] = {
    "AMST, multi-stream transport": (
        (
            "The specification's throughputs (hundreds of GB/s and more) are those of calls that move no bytes. Ours is "
            "one sender and one receiver on two cores with mutual TLS 1.3 over loopback: the processor is the bound, so one "
            "channel is as fast as several. What several channels are for is a path that loses packets: see the demo."
        ),
        (
            Line("1 stream, 64 KB", "3,489 GB/s", _amst("channels=1")),
            Line("8 streams", "2,519 GB/s", _amst("channels=8")),
            Line("32 streams", "2,460 GB/s", _amst("channels=32")),
            Line("128 streams", "3,004 GB/s", _amst("channels=128")),
            Line("512 streams", "3,007 GB/s", _amst("channels=512")),
            Line("zero-copy, 4 KB", "436 GB/s", _amst("segment=4 KiB, splice")),
            Line("zero-copy, 64 KB", "6,995 GB/s", _amst("segment=64 KiB, splice")),
            Line("zero-copy, 1 MB", "111,467 GB/s", _amst("segment=1 MiB, splice")),
            Line("zero-copy, 16 MB", "1,807,251 GB/s", _amst("segment=16 MiB, splice")),
            Line("connection set-up, TCP local", "2.21 ms", _amst("channels=1", "set-up")),
            Line("connection set-up, RDMA local", "1.96 ms", "RDMA does not reach the agent"),
        ),
    ),
    "HDE, delta encoding": (
        (
            "Ratios are bytes out for each byte in (the specification gives the inverse). Its texts and memory images are "
            "not known; ours are made from a seed and named by `bench hde`. Encoding by deltas pays where a guest sends "
            "pages again."
        ),
        (
            Line("zeros", "1/21 to 1/1000", (Figure("hde", "content=zeros codec=zstd-1", "ratio"),)),
            Line("text", "1/21 to 1/333", (Figure("hde", "content=text codec=zstd-3", "ratio"),)),
            Line("VM memory, first pass", "1/7.0 to 1/9.7", (Figure("hde", "content=memory codec=zstd-3", "ratio"),)),
            Line("VM memory, sent again", "-", (Figure("hde", "content=resent codec=zstd-1", "ratio"),)),
            Line("mixed", "1/3.0 to 1/3.3", (Figure("hde", "content=mixed codec=zstd-3", "ratio"),)),
            Line("lz4, compress", "711 MB/s", (Figure("hde", "content=memory codec=lz4", "encode_throughput"),)),
            Line("lz4, decompress", "12.3 MB/s", (Figure("hde", "content=memory codec=lz4", "decode_throughput"),)),
            Line("snappy", "762 and 104 MB/s", "not used: zstd's fast levels cover its place"),
        ),
    ),
    "PBA, bandwidth prediction": (
        (
            "One forecast here is ten models, their mix and calibrated bands, in numpy. Accuracy is 100 % minus the "
            "weighted absolute percentage error of the next sample."
        ),
        (
            Line("prediction, LSTM (10, 32)", "1.07 us", (Figure("pba", "inference/lstm-small/batch-1024", "us"),)),
            Line("prediction, LSTM (50, 64)", "2.01 us", (Figure("pba", "inference/lstm-medium/batch-1024", "us"),)),
            Line("prediction, LSTM (100, 128)", "3.88 us", (Figure("pba", "inference/lstm-large/batch-1024", "us"),)),
            Line("accuracy, stable", "97.5 %", (Figure("pba", "accuracy/stable/mix", "accuracy_percent/step1"),)),
            Line("accuracy, linear", "86.8 %", (Figure("pba", "accuracy/linear/mix", "accuracy_percent/step1"),)),
            Line("accuracy, periodic", "68.0 %", (Figure("pba", "accuracy/periodic/mix", "accuracy_percent/step1"),)),
            Line("accuracy, volatile", "86.3 %", (Figure("pba", "accuracy/volatile/mix", "accuracy_percent/step1"),)),
            Line("CPU", "< 30 %", (Figure("pba", "overhead/32/64", "cpu_percent"),)),
        ),
    ),
    "ASS, state synchronisation": (
        (
            "All replicas share the machine's two cores and its disk, each a process of its own, each commit synced "
            "before it counts."
        ),
        (
            Line("Raft commit, 1 KB, 3 nodes", "1.13 ms", (Figure("ass", "raft/3/1024", "commit_p50_ms"),)),
            Line("Raft commit, 1 KB, 5 nodes", "2.26 ms", (Figure("ass", "raft/5/1024", "commit_p50_ms"),)),
            Line("Raft commit, 1 KB, 7 nodes", "3.39 ms", (Figure("ass", "raft/7/1024", "commit_p50_ms"),)),
            Line("Raft commit, 64 KB, 3 nodes", "1.13 ms", (Figure("ass", "raft/3/65536", "commit_p50_ms"),)),
            Line("Raft commit, 64 KB, 7 nodes", "3.37 ms", (Figure("ass", "raft/7/65536", "commit_p50_ms"),)),
            Line("leader election, 3 nodes", "2.26 ms", (Figure("ass", "election/3", "sigkill_p50_ms"),)),
            Line("leader election, 7 nodes", "4.27 ms", (Figure("ass", "election/7", "sigkill_p50_ms"),)),
            Line("leader election, 11 nodes", "6.29 ms", (Figure("ass", "election/11", "sigkill_p50_ms"),)),
            Line("broadcast of 1 KB, 3 nodes", "1.11 ms", (Figure("ass", "broadcast/3", "all_applied_p50_ms"),)),
            Line("broadcast of 1 KB, 7 nodes", "1.12 ms", (Figure("ass", "broadcast/7", "all_applied_p50_ms"),)),
            Line(
                "state sync, 1 to 100 MB", "2.28 to 632 ms", "the fleet's record is small; bulk state is not built yet"
            ),
        ),
    ),
    "ACP, consensus": (
        "Requests of 1 KiB over mutual TLS between processes; the client and all replicas share two cores.",
        (
            Line("PBFT, 4 nodes, batch 1", "3.40 ms", (Figure("acp", "pbft/4/0/1/1", "latency_p50_ms"),)),
            Line("the same, 10 workers", "2,930/s", (Figure("acp", "pbft/4/0/adaptive/10", "ops_per_s"),)),
            Line("the same, 64 in flight", "-", (Figure("acp", "pbft/4/0/adaptive/64", "ops_per_s"),)),
            Line("PBFT, 7 and 10 nodes, faulty ones", "3.40 to 3.43 ms", "not measured on the present code"),
        ),
    ),
    "ITP, placement": (
        "Kernels compiled by numba; an optimality gap is measured against proven or planted optima.",
        (
            Line("placement 10 x 5", "1.51 us", (Figure("itp", "place/10x5/basic", "us"),)),
            Line("placement 50 x 20", "9.47 us", (Figure("itp", "place/50x20/basic", "us"),)),
            Line("placement 100 x 50, basic", "19.98 us", (Figure("itp", "place/100x50/basic", "us"),)),
            Line("placement 100 x 50, complex", "20.19 us", (Figure("itp", "place/100x50/complex", "us"),)),
            Line("geo, 3 regions, 50 VMs", "24.1 us", (Figure("itp", "geo/3/10/50", "us"),)),
            Line("geo, 10 regions, 50 VMs", "76.5 us", (Figure("itp", "geo/10/50/50", "us"),)),
            Line("utilisation of 1,000 hosts", "130.8 us", (Figure("itp", "utilisation/1000", "us"),)),
            Line("affinity, 50 VMs, 20 rules", "202 ns", (Figure("itp", "affinity/200/40/apart", "ns"),)),
            Line("rebalance, 10 hosts", "1.14 ms", (Figure("itp", "rebalance/10", "ms"),)),
            Line("rebalance, 50 hosts", "5.27 ms", (Figure("itp", "rebalance/50", "ms"),)),
            Line("rebalance, 100 hosts", "10.29 ms", (Figure("itp", "rebalance/100", "ms"),)),
            Line("dynamic, 50 x 20", "9.33 us", (Figure("itp", "dynamic/50x20", "us"),)),
            Line("dynamic, 200 x 100", "39.3 us", (Figure("itp", "dynamic/200x100", "us"),)),
            Line("balance near the optimum", "within 5 %", (Figure("itp", "accuracy/exact", "gap_percent"),)),
        ),
    ),
}


def result(suite: str) -> dict[str, Any]:
    """Read a suite's committed result."""
    found: dict[str, Any] = json.loads((RESULTS / f"{suite}.json").read_text())
    return found


def figure(wanted: Figure) -> str:
    """Write one of our figures with its unit.

    Raises:
        LookupError: the result file has no such case and metric.
    """
    for row in result(wanted.suite)["rows"]:
        if (row["case"], row["metric"]) == (wanted.case, wanted.metric):
            unit = {"1": "", "percent": "%", "percent of a core": "% of a core"}.get(row["unit"], row["unit"])
            return (
                f"{row['value']:,.3g} {unit}".strip()
                if abs(row["value"]) < WHOLE_FROM
                else f"{row['value']:,.0f} {unit}"
            )
    raise LookupError(f"{wanted.suite}.json has no {wanted.case} {wanted.metric}")


def page() -> str:
    """Write the whole page."""
    parts = [
        (
            "# Benchmarks\n\nEach row of the specification beside ours, generated from `bench/results/` by "
            "`python -m bench.page`. What a suite measures,\nand how, is in [bench/README.md](../bench/README.md) and in "
            "each row's `method`. Figures are medians on a machine of two\nvirtual cores, shared with others, unless said "
            "otherwise.\n"
        ),
        _demo(),
    ]
    for heading, (words, lines) in PARTS.items():
        suites = sorted({one.suite for line in lines if not isinstance(line.ours, str) for one in line.ours})
        parts.append(f"## {heading}\n\n{_wrapped(words)}\n")
        rows = ["| row | specification | ours | case |", "|---|---|---|---|"]
        for line in lines:
            if isinstance(line.ours, str):
                rows.append(f"| {line.what} | {line.given} | none: {line.ours} | |")
                continue
            ours = ", ".join(figure(one) for one in line.ours)
            rows.append(f"| {line.what} | {line.given} | {ours} | `{line.ours[0].case}` {line.ours[0].metric} |")
        parts.append("\n".join(rows) + "\n")
        parts.extend(_origin(suite) for suite in suites)
    return "\n".join(parts)


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
        "| command | time | downtime | on the wire | use of the link |",
        "|---|---|---|---|---|",
    ]
    for arm in found["arms"]:
        used = arm["wire_bytes"] / (arm["time_s"] * link["rate_bytes_per_s"])
        words = arm["command"] + (" (accelerated)" if arm["arm"] == "accelerated" else "")
        wire = f"{arm['wire_bytes'] / 2**20:.0f} MiB"
        rows.append(f"| `{words}` | {arm['time_s']:.1f} s | {arm['downtime_ms']:,} ms | {wire} | {used:.0%} |")
    return "\n".join(rows) + "\n"


def _origin(suite: str) -> str:
    found = result(suite)
    command = found["command"].replace("dwcp-migrate bench", "python -m bench")  # as it is spelled now
    return f"`{suite}.json`: {found['machine']}; commit {found['commit']}; `{command}`.\n"


def _wrapped(words: str) -> str:
    return textwrap.fill(words, 120)


if __name__ == "__main__":
    print(page(), end="")
