"""The planner's tick over a whole migration, with a fake libvirt and interfaces that a test makes."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.forecasting.loop import LOOK_S, ForecastLoop
from dwcp_migrate.agent.http.handlers.prediction import PredictionHandlers
from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.agent.shared_parts import make_runtime
from dwcp_migrate.api.migration import Migration, MigrationEvent, append_event, close_record
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.config import Config, PeerConfig
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.hypervisor.base import DomainInfo
from dwcp_migrate.hypervisor.fake import FakeWatcher
from dwcp_migrate.hypervisor.network import Interface
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.units import GIB, MIB

UUID = "8f3c1d6e-0000-4000-8000-000000000001"
RATE = 20e6


class World:
    """A planner, and the host around it."""

    def __init__(self, directory: Path) -> None:
        self.watcher = FakeWatcher([DomainInfo(UUID, "web1", GIB)])
        self.watcher.dirty_rates[UUID] = 8.0 * MIB
        config = Config(
            name="hv1",
            state_directory=directory,
            runtime_directory=directory,
            peers=[PeerConfig(name="hv2", addresses=["192.0.2.2"], port=9)],
        )
        self.runtime = make_runtime(config, self.watcher, ["true"], list)
        self.runtime.directory = PeerDirectory(config.peers, "hv1", lambda _: False)
        self.sent = 0
        self.looked: list[list[str]] = []
        self.paced: dict[str, float] = {}
        self.planner = ForecastLoop(self.runtime, self.paced.__setitem__, self.look)
        self.record = Migration(
            id="aa" * 16,
            role="source",
            state="precopy",
            peer="hv2",
            address="192.0.2.2",
            port=49152,
            domain="web1",
            uuid=UUID,
            started_at=1000.0,
            memory_bytes=GIB,
            remaining_bytes=GIB,
            dirty_bytes_per_s=1e6,
            iteration=1,
        )

    def look(self, addresses: list[str]) -> list[Interface]:
        self.looked.append(addresses)
        return [Interface("eth0", 125e6, self.sent, 7)]

    async def carry(self, seconds: int, *, busy: float) -> None:
        """Let the migration run for so many ticks."""
        for second in range(1, seconds + 1):
            self.runtime.ledger.put(
                replace(
                    self.record,
                    remaining_bytes=int(GIB - second * RATE),
                    counters=MigrationCounters(
                        raw_bytes=int(2 * second * RATE),
                        wire_bytes=int(second * RATE),
                        rtt_s=0.02,
                        retransmits=3 * second,
                        link_waiting_s=second * busy,
                        path_waiting_s=second * busy,
                    ),
                    expected=self.expected,
                )
            )
            await self.planner.tick(1000.0 + second)

    @property
    def expected(self) -> object:
        known = self.runtime.ledger.get(self.record.id)
        return known.expected if known is not None else None

    def rate(self) -> float | None:
        found = self.planner.forecasts.quantiles(Key("link", "rate", "hv2"))
        return float(found[0, 1]) if found is not None else None


@pytest.fixture
async def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    await found.runtime.domains.start()
    return found


async def finish(world: World) -> None:
    await world.planner.close()
    await world.runtime.domains.close()


async def test_a_migration_that_fills_its_link_shows_what_that_carries(world: World) -> None:
    await world.carry(8, busy=1.0)
    assert world.rate() == pytest.approx(RATE, rel=0.05)
    forecasts = world.planner.forecasts
    assert forecasts.known(Key("link", "rtt", "hv2"), 1) == [0.02]
    assert forecasts.known(Key("link", "retransmits", "hv2"), 1) == [3.0]
    await finish(world)


async def test_one_that_does_not_fill_it_shows_a_lower_bound_only(world: World) -> None:
    await world.carry(8, busy=0.4)
    assert world.rate() is None
    assert world.planner.forecasts.known(Key("link", "seen", "hv2"), 1)[0] == pytest.approx(RATE)
    await finish(world)


async def test_one_that_waits_for_its_own_rate_says_nothing_about_the_link(world: World) -> None:
    """Another has the link and does not fill it: the two together are no measure of what it carries."""
    await world.carry(20, busy=1.0)
    held = replace(
        world.record, id="bb" * 16, domain="web2", uuid=UUID[:-1] + "2", memory_bytes=4 * GIB, remaining_bytes=4 * GIB
    )
    world.runtime.ledger.put(held)
    for second in range(1, 5):
        for record, rate, busy in ((world.record, 5e6, 0.2), (held, 0.3e6, 1.0)):
            sent = 20 * RATE * (record is world.record) + second * rate
            waited_s = 20.0 * (record is world.record) + second * busy
            counters = MigrationCounters(
                raw_bytes=int(sent), wire_bytes=int(sent), link_waiting_s=waited_s, path_waiting_s=waited_s
            )
            world.runtime.ledger.put(replace(record, counters=counters))
        await world.planner.tick(1020.0 + second)
        if second == 1:
            assert world.planner.sharing.holds(held.id)
    assert min(world.planner.forecasts.known(Key("link", "rate", "hv2"), 100)) >= 0.99 * RATE
    await finish(world)


async def test_a_record_gets_its_prediction_once_and_an_estimate_with_a_range(world: World) -> None:
    await world.carry(1, busy=1.0)
    first = world.expected
    assert first is not None
    await world.carry(6, busy=1.0)
    assert world.expected == first
    (record,) = world.runtime.ledger.running()
    assert record.eta_range_s is not None
    assert record.eta_range_s[0] <= record.eta_s <= record.eta_range_s[1]
    await finish(world)


async def test_a_prediction_goes_by_the_downtime_limit_that_libvirt_has_for_the_domain(world: World) -> None:
    world.watcher.downtime_limits[UUID] = 3.0
    await world.carry(1, busy=1.0)
    assert world.planner.subject(world.record).downtime_s_max == 3.0
    await finish(world)


async def test_an_ended_migration_is_learned_from(world: World) -> None:
    await world.carry(4, busy=1.0)
    ended = world.runtime.ledger.get(world.record.id)
    assert ended is not None
    world.runtime.ledger.put(close_record(ended, 1005.0, libvirt="completed"))
    await world.planner.tick(1006.0)
    assert world.planner.forecasts.known(Key("domain", "first_share", UUID), 1)
    assert world.runtime.ledger.totals().predictions
    await finish(world)


async def test_what_the_interfaces_carry_beside_migrations_is_other_traffic(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.planner._look_at_network()
    world.sent += 500_000_000
    monkeypatch.setattr("dwcp_migrate.agent.forecasting.loop.wall_clock", lambda: 4e9)
    await world.planner._look_at_network()
    assert world.looked[0] == ["192.0.2.2"]
    forecasts = world.planner.forecasts
    assert forecasts.known(Key("interface", "speed", "eth0"), 1) == [125e6]
    assert forecasts.known(Key("interface", "backlog", "eth0"), 1) == [7.0]
    assert forecasts.known(Key("interface", "other", "eth0"), 1)[0] > 0
    assert LOOK_S > 1
    await finish(world)


async def test_a_prediction_is_asked_for_by_name_or_uuid_and_measures_the_dirty_rate(world: World) -> None:
    handlers = PredictionHandlers(world.runtime, world.planner)
    for name in ("web1", UUID):
        said = await handlers.predict(name, "hv2", 0.0)
        assert said.domain == "web1"
        assert said.dirty_bytes_per_s[1] == 8 * MIB
        assert not said.link_known
        assert said.rtt_s == 0  # nobody listens there
        assert said.expected.time_s[0] < said.expected.time_s[1] < said.expected.time_s[2]
    await finish(world)


async def test_who_is_unknown_is_said(world: World) -> None:
    handlers = PredictionHandlers(world.runtime, world.planner)
    with pytest.raises(NotFoundError, match="no domain"):
        await handlers.predict("web9", "hv2", 0.0)
    with pytest.raises(NotFoundError, match="no peer"):
        await handlers.predict("web1", "hv9", 0.0)
    await finish(world)


async def test_links_are_shown_once_they_were_measured_and_wishes_are_taken(world: World) -> None:
    handlers = PredictionHandlers(world.runtime, world.planner)
    assert handlers.links() == []
    await world.carry(5, busy=1.0)
    (link,) = handlers.links()
    assert link.peer == "hv2"
    assert link.next_minute[0] <= link.next_minute[1] <= link.next_minute[2]
    done = handlers.share("web1", 2.0, 60.0)
    assert "weight 2" in done.message
    assert world.planner.sharing.wished("web1").due_at > 0
    await finish(world)


async def test_what_was_measured_is_told_and_nothing_is_measured_for_it(world: World) -> None:
    handlers = PredictionHandlers(world.runtime, world.planner)
    assert (await handlers.measured()).guests == []
    for rate in (1e6, 9e6, 2e6):
        world.planner.forecasts.note(Key("domain", "dirty", UUID), rate, 1000.0)
    await world.carry(20, busy=0.95)
    told = await handlers.measured()
    assert [one.domain for one in told.guests] == ["web1"]
    assert 1e6 <= told.guests[0].dirty_bytes_per_s <= 9e6
    assert [link.peer for link in told.links] == ["hv2"]
    await finish(world)


async def test_dirty_rates_are_measured_of_domains_that_do_not_migrate(world: World) -> None:
    await world.planner._measure_dirty_rates()
    assert world.planner.forecasts.known(Key("domain", "dirty", UUID), 1) == [8 * MIB]
    await finish(world)


async def test_the_link_goes_to_the_next_at_once_and_not_at_the_next_tick(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.carry(20, busy=1.0)
    monkeypatch.setattr("dwcp_migrate.agent.forecasting.loop.TICK_S", 3600.0)
    paced = asyncio.Event()

    def pace(identity: str, bytes_per_s: float) -> None:
        world.paced[identity] = bytes_per_s
        paced.set()

    world.planner.sharing._pace = pace
    loop = asyncio.create_task(world.planner.run())
    ledger = world.runtime.ledger
    long = replace(world.record, id="bb" * 16, domain="web2", uuid=UUID[:-1] + "2", memory_bytes=4 * GIB)
    ledger.put(replace(long, remaining_bytes=4 * GIB))
    await asyncio.wait_for(paced.wait(), 10)
    assert 0 < world.paced[long.id] < 0.1 * RATE
    assert world.record.id not in world.paced
    paced.clear()
    ledger.change(world.record.id, _all_sent)
    await asyncio.wait_for(paced.wait(), 10)
    assert world.paced[long.id] == 0
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await finish(world)


def _all_sent(record: Migration) -> Migration:
    """QEMU's connection is over, and libvirt has not said yet how it went."""
    record = replace(record, connections={"main": 1})
    return append_event(record, MigrationEvent(at=1021.0, event="connection-closed", connection=0))
