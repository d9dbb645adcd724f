"""The agent's look at loads, again and again; what peers and the control API are told of them.

The rule: a look costs one bulk call. Where that takes long, the next one is later, so that looking takes at most
LOOK_SHARE of the time; libvirt is not waited for by any migration.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.forecasting.load_meter import LoadMeter, merged
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError, NoAnswerError
from dwcp_migrate.hypervisor.load_counters import HostCounters, stalled_s
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import Weigh, Weighed
from dwcp_migrate.protocol.load import GUESTS_EACH, FleetLoad, GuestLoad, HostLoad

LOOK_SHARE: Final = 0.01
"""Of the time, for the bulk call."""

LOOK_S_MAX: Final = 300.0
PRESSURE: Final = Path("/proc/pressure/memory")
FLUSH_S: Final = 300.0

ASKED_AT_ONCE: Final = 64
"""Peers."""

PARTS_MAX: Final = 32
"""Messages of one peer: its guests and twice as many again."""

log = get_logger(component="load")


class LoadWatch:
    """The loop and the answers.

    Args:
        runtime: the shared parts.
        pressure: reads the kernel's figures of memory pressure; empty where it has none.
    """

    def __init__(self, runtime: Runtime, pressure: Callable[[], str] | None = None) -> None:
        self._runtime = runtime
        self._pressure = pressure or _pressure
        self.meter = LoadMeter(runtime.config.state_directory)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._every_s = 0.0
        self._flushed_at = steady_clock()

    async def run(self) -> None:
        """Look until cancelled; 0 in the configuration looks at nothing."""
        while True:
            every_s = self._runtime.config.bandwidth.load_interval_s
            if every_s > 0:
                took_s = await self.look()
                self._every_s = min(LOOK_S_MAX, max(every_s, took_s / LOOK_SHARE))
            await asyncio.sleep(self._every_s or LOOK_S_MAX)

    async def look(self) -> float:
        """Look once; the seconds that libvirt took."""
        began = steady_clock()
        try:
            counters = await self._runtime.domains.counters()
            if counters is not None:
                self.meter.take(wall_clock(), replace_stalled(counters, self._pressure()))
        except NoAnswerError:
            pass  # libvirt is away, or busy; the next look
        except Exception:  # a fault of ours in one look must not end all later ones
            log.exception("look at loads failed")
        took_s = steady_clock() - began
        if steady_clock() - self._flushed_at >= FLUSH_S:
            self._flushed_at = steady_clock()
            await asyncio.get_running_loop().run_in_executor(self._thread, self.meter.flush)
        return took_s

    async def close(self) -> None:
        """Write what is pending."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.meter.flush)
        self._thread.shutdown()

    def own(self) -> HostLoad:
        """This host's load."""
        return self.meter.load(self._every_s)

    def part(self, request: Weigh) -> Weighed:
        """A peer's question answered: the host, and its guests from `offset` on."""
        whole = self.own()
        return Weighed(load=replace(whole, guests=whole.guests[request.offset : request.offset + GUESTS_EACH]))

    async def fleet(self) -> FleetLoad:
        """The loads of this host and all its peers, asked now."""
        turns = asyncio.Semaphore(ASKED_AT_ONCE)
        told: dict[str, HostLoad] = {self._runtime.name: self.own()}
        silent: dict[str, str] = {}

        async def ask(peer: PeerConfig) -> None:
            async with turns:
                try:
                    told[peer.name] = await self._of_peer(peer)
                except DwcpError as error:
                    silent[peer.name] = str(error)

        await asyncio.gather(*(ask(peer) for peer in self._runtime.directory.all()))
        guests = {name: load.guests for name, load in told.items()}
        hosts = {name: replace(load, guests=[]) for name, load in told.items()}
        return FleetLoad(hosts=hosts, guests=merged(told, guests), silent=silent)

    async def _of_peer(self, peer: PeerConfig) -> HostLoad:
        guests: list[GuestLoad] = []
        found = HostLoad()
        for _ in range(PARTS_MAX):
            answer = await self._runtime.control.ask(peer, peer.addresses[0], Weigh(offset=len(guests)), Weighed)
            found = answer.load
            guests += found.guests
            if not found.guests or len(guests) >= found.total:
                break
        return replace(found, guests=guests)


def replace_stalled(counters: HostCounters, pressure: str) -> HostCounters:
    """Replace the memory pressure in a host's counters.

    Args:
        counters: by libvirt, which has no such figure.
        pressure: content of /proc/pressure/memory; another text gives None.
    """
    return HostCounters(counters.busy_s, counters.memory_bytes, stalled_s(pressure), counters.guests)


def _pressure() -> str:
    with contextlib.suppress(OSError):
        return PRESSURE.read_text(encoding="ascii")
    return ""
