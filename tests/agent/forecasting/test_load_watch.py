"""The agent's looks at loads, and what it tells of them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dwcp_migrate.agent.forecasting import load_watch
from dwcp_migrate.agent.forecasting.load_watch import LoadWatch
from dwcp_migrate.config import BandwidthConfig, PeerConfig
from dwcp_migrate.errors import NoAnswerError, PeerRefusedError
from dwcp_migrate.hypervisor.load_counters import GuestCounters, HostCounters
from dwcp_migrate.protocol.control import FRAME_BYTES_MAX, Weigh, encode_control
from dwcp_migrate.protocol.load import GUESTS_EACH, HostLoad

GUESTS = GUESTS_EACH + 3


def counters(cpu_s: float, guests: int = GUESTS) -> HostCounters:
    named = {
        f"00000000-0000-4000-8000-{number:012}": GuestCounters(cpu_s, 1.0, 2.0, 3.0, 4.0) for number in range(guests)
    }
    return HostCounters(busy_s=cpu_s, guests=named)


class Libvirt:
    """Answers with counters that grow."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.is_away = False

    async def counters(self) -> HostCounters:
        if self.is_away:
            raise NoAnswerError("libvirtd is away")
        self.cpu_s += 1.0
        return counters(self.cpu_s)


class Peers:
    """Two peers: one tells its load in parts, the other is of an older release."""

    def __init__(self, watch: LoadWatch | None = None) -> None:
        self.watch = watch
        self.asked: list[int] = []

    async def ask(self, peer: PeerConfig, _address: str, request: Weigh, _answer: Any) -> Any:
        if peer.name == "old":
            raise PeerRefusedError(
                "old refused: the destination agent does not know this request", code="unknown-request"
            )
        self.asked.append(request.offset)
        assert self.watch is not None
        return self.watch.part(request)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> LoadWatch:
    now = iter(range(1000, 2000, 10))
    monkeypatch.setattr(load_watch, "wall_clock", lambda: float(next(now)))
    peers = [PeerConfig(name=name, addresses=["192.0.2.1"]) for name in ("hv2", "old")]
    runtime: Any = SimpleNamespace(
        name="hv1",
        config=SimpleNamespace(state_directory=None, bandwidth=BandwidthConfig()),
        domains=Libvirt(),
        control=Peers(),
        directory=SimpleNamespace(all=lambda: peers),
    )
    made = LoadWatch(runtime, lambda: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    runtime.control.watch = made
    return made


def test_a_fleet_s_loads_are_asked_for_in_parts_and_an_older_agent_is_named(watch: LoadWatch) -> None:
    async def run() -> Any:
        await watch.look()
        await watch.look()
        return await watch.fleet()

    found = asyncio.run(run())
    assert set(found.hosts) == {"hv1", "hv2"}
    assert len(found.guests) == GUESTS
    assert found.hosts["hv2"].stalled is not None
    assert found.hosts["hv2"].guests == []
    assert "does not know this request" in found.silent["old"]
    assert watch._runtime.control.asked == [0, GUESTS_EACH]  # type: ignore[attr-defined]


def test_a_part_with_all_guests_that_it_may_have_fits_into_a_frame(watch: LoadWatch) -> None:
    asyncio.run(watch.look())
    asyncio.run(watch.look())
    part = watch.part(Weigh())
    assert len(part.load.guests) == GUESTS_EACH
    assert len(encode_control(1, part)) < FRAME_BYTES_MAX


def test_a_libvirt_that_is_away_costs_a_look_and_no_more(watch: LoadWatch) -> None:
    watch._runtime.domains.is_away = True  # type: ignore[attr-defined]
    asyncio.run(watch.look())
    assert watch.own() == HostLoad()
