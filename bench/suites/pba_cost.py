"""Cost of forecasting: one prediction, many at once, training, and the whole beside an agent's work.

Rule: CPU time, not elapsed time, wherever the question is a share of a core; one thread.
"""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from bench.frame import Options, Row
from dwcp_migrate.bandwidth.allocation.allocator import Demand, LinkCapacity, allocate_rates
from dwcp_migrate.bandwidth.forecasting.ensemble import neural
from dwcp_migrate.bandwidth.forecasting.resampling import Samples
from dwcp_migrate.bandwidth.forecasting.weights import MODELS
from dwcp_migrate.bandwidth.forecasting.windows import SeriesWindow
from dwcp_migrate.bandwidth.storage import model_files
from dwcp_migrate.bandwidth.targets import LOW
from dwcp_migrate.transport.io import tcp_info

LINKS: Final = 32
DOMAINS: Final = 64
TICKS_PER_S: Final = 10
OVERHEAD_S: Final = 60
BATCHES: Final = (1, 64, 1024)

TRAINING_SERIES: Final = 240
"""Series of the timed training: a third of those of the shipped models, so that a run ends in minutes."""


def inference_rows(options: Options) -> list[Row]:
    """Time one step of each model, alone and in batches, and a whole sequence from the beginning."""
    found = []
    for name, model in MODELS.items():
        weights = model_files.load((name,)).weights[name]
        for batch in BATCHES:
            expert, history, slots = neural(name, weights, batch), SeriesWindow(batch), np.arange(batch)
            history.push(slots, np.ones(batch))
            runs = max(5, (200 if options.quick else 4000) // batch)
            seconds = _timed(partial(expert.step, slots, history), runs)
            case = "single" if batch == 1 else f"batch-{batch}"
            method = "one streaming step" if model.kind == "lstm" else "one pass over a window"
            found.append(
                Row(
                    case=f"inference/{name}/{case}",
                    metric="us",
                    value=round(seconds / batch * 1e6, 3),
                    unit="us",
                    n=runs,
                    method=f"{method} with numpy, one thread, CPU time for each of {batch} series",
                )
            )
        if model.kind == "lstm":
            found.append(_whole_sequence(name, options))
    return found


def _whole_sequence(name: str, options: Options) -> Row:
    """Forecast one series from its first sample: the cost of a cell that does not stream."""
    model, slots = MODELS[name], np.arange(1)
    weights = model_files.load((name,)).weights[name]
    runs = 5 if options.quick else 40

    def whole() -> None:
        expert, history = neural(name, weights, 1), SeriesWindow(1)
        for _ in range(model.sequence):
            history.push(slots, np.ones(1))
            expert.step(slots, history)

    return Row(
        case=f"inference/{name}/sequence",
        metric="us",
        value=round(_timed(whole, runs) * 1e6, 1),
        unit="us",
        n=runs,
        method=f"{model.sequence} streaming steps from the beginning, one series",
    )


def _timed(function: Callable[[], object], runs: int) -> float:
    """CPU seconds of one call."""
    function()
    begin = time.process_time()
    for _ in range(runs):
        function()
    return (time.process_time() - begin) / runs


def training_rows(options: Options) -> list[Row]:
    """Train each model from nothing on series as the shipped ones were trained on; none without torch."""
    try:
        from dwcp_migrate.bandwidth.training import ensembles, fit
    except ImportError:
        return []
    count = TRAINING_SERIES // 4 if options.quick else TRAINING_SERIES
    series = ensembles.synthetic_series(options.seed, count)
    effort = ensembles.TrainingEffort(seed=options.seed)
    found = []
    for name, model in MODELS.items():
        begin = time.perf_counter()
        trained = fit.train(model, series, effort.plan(model, count))
        found.append(
            Row(
                case=f"train/{name}",
                metric="s",
                value=round(time.perf_counter() - begin, 1),
                unit="s",
                n=1,
                method=f"{count} series of {ensembles.SYNTHETIC_SAMPLES} samples, {len(trained.losses) - 1} epochs, "
                f"one thread; loss held out {trained.losses[0]:.4f} -> {min(trained.losses):.4f}",
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Pace:
    """Samples between two forecasts and allocations of an agent; name and text of the row."""

    forecast: int
    allocate: int
    case: str
    said: str


PACES: Final = (
    _Pace(
        TICKS_PER_S, TICKS_PER_S, "", "a second's samples are one step of the panel and one allocation, as in the agent"
    ),
    _Pace(
        TICKS_PER_S,
        1,
        "/allocating-each-sample",
        "forecast each second, allocated at each sample from the last forecast",
    ),
    _Pace(1, 1, "/forecasting-each-sample", "every sample a step of the panel and an allocation: steps of 0.1 s"),
)
"""The horizons of a forecast are seconds: a step is a second's mean, and forecasting ten times a second would shorten
them to a tenth. The agent shares by the low quantile of the next ten seconds; a second later nine of these still lie
ahead."""


class _Host:
    """What an agent does all day: measuring, forecasting, allocating.

    Args:
        sockets: whose TCP_INFO is read.
        pace: how often it does the rest.
    """

    def __init__(self, sockets: list[socket.socket], pace: _Pace) -> None:
        self._sockets = sockets
        self._pace = pace
        self.panel = model_files.load().panel(LINKS + DOMAINS)
        self.samples = Samples(LINKS + DOMAINS)
        self.slots = np.arange(LINKS + DOMAINS)
        self.draw = np.random.default_rng(1)
        self.before = np.zeros(LINKS)

    def tick(self, number: int) -> None:
        """One tenth of a second of work."""
        infos = [tcp_info.read(sock) for sock in self._sockets]
        delivered = np.array([info.acknowledged_bytes for info in infos], dtype=np.float64)
        rates = (delivered - self.before) * TICKS_PER_S
        self.before = delivered
        values = np.concatenate([rates + 25e6, np.full(DOMAINS, 8e6)]) * self.draw.lognormal(0, 0.2, len(self.slots))
        self.samples.add(self.slots, values)
        if number % self._pace.forecast == 0:
            self.panel.step(*self.samples.take())
        if number % self._pace.allocate == 0:
            self._allocate()

    def _allocate(self) -> None:
        for link in range(LINKS):
            capacity = LinkCapacity(forecast_bytes_per_s=float(self.panel.forecasts[link, 0, LOW]))
            demands = [
                Demand(identity=name, remaining_bytes=4e9, dirty_bytes_per_s=float(self.panel.forecasts[slot, 0, 1]))
                for name, slot in (("a", LINKS + 2 * link), ("b", LINKS + 2 * link + 1))
            ]
            allocate_rates(capacity, demands)


def overhead_rows(options: Options) -> list[Row]:
    """CPU of an agent that watches so many links and domains ten times a second, two migrations on every link."""
    seconds = OVERHEAD_S // 6 if options.quick else OVERHEAD_S
    found = []
    for pace in PACES:
        with ExitStack() as stack:
            host = _Host(_connections(stack), pace)
            for number in range(3 * TICKS_PER_S):
                host.tick(number)
            begin = time.process_time()
            for number in range(seconds * TICKS_PER_S):
                host.tick(number)
            share = (time.process_time() - begin) / seconds
        found.append(
            Row(
                case=f"overhead/{LINKS}/{DOMAINS}{pace.case}",
                metric="cpu_percent",
                value=round(100 * share, 3),
                unit="percent of a core",
                n=1,
                method=f"TCP_INFO of {LINKS} connections and {DOMAINS} domains' rates at {TICKS_PER_S} Hz, "
                f"{pace.said}; CPU time for {seconds} s of it",
            )
        )
    return found


def _connections(stack: ExitStack) -> list[socket.socket]:
    """Open TCP connections of this process with itself, closed with the stack."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=LINKS))
    ours = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(LINKS)]
    for _ in range(LINKS):
        stack.enter_context(listener.accept()[0])
    return ours
