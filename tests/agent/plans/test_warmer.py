"""Guests of kept plans warmed up ahead of their moves: by the book of a host and the warm-ups of real agents."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.plans import warmer as warmers
from dwcp_migrate.agent.plans.book import PlanBook
from dwcp_migrate.agent.plans.carrier import PlanCarrier, due
from dwcp_migrate.agent.plans.warmer import GUEST_S_MAX, REFUSALS_MAX, PlanWarmer, judge_outcome
from dwcp_migrate.agent.tracking.warm_book import WarmBook
from dwcp_migrate.api.plans import GuestWarmth, PlanRecord, PlanRequest, WarmFirst, WarmMove
from dwcp_migrate.api.warm import WarmUp
from dwcp_migrate.api.warm_plan import UNHEARD, has_to_wait
from dwcp_migrate.config import CoordinationConfig, StoreConfig
from dwcp_migrate.errors import SessionError, StalePlanError, StoreError
from dwcp_migrate.orchestration import plan_progress
from dwcp_migrate.placement.plan import Goal
from dwcp_migrate.state.fleet.commands import PutHost
from dwcp_migrate.state.fleet.model import VERSION
from tests.agent.authorization.world import NAMES, world_of
from tests.agent.test_warm_ups import WAIT_S, Hosts, started, until

VM1, VM2, FAR = WarmMove("vm1", "hv1", "hv2"), WarmMove("vm2", "hv1", "hv3"), WarmMove("vm3", "hv2", "hv3")
NOW = 1000.0
BEGINS_AT = NOW + 10_000.0


class WarmUps:
    """What `OutgoingWarmUps` is to the warmer; its warm-ups change where a test says so."""

    def __init__(self) -> None:
        self.book = WarmBook()
        self.begun: list[tuple[str, str, float, float]] = []
        self.refusal: Exception | None = None

    async def begin(self, domain: str, peer: str, bytes_per_s: float, for_s: float) -> WarmUp:
        self.begun.append((domain, peer, bytes_per_s, for_s))
        if self.refusal is not None:
            raise self.refusal
        one = WarmUp(id=f"{len(self.begun)}", domain=domain, uuid=domain, peer=peer, started_at=NOW)
        self.book.put(one)
        return one

    def end(self, identity: str) -> WarmUp:
        self.book.change(identity, state="ended", detail="ended by command")
        return self.book.find(identity)

    @property
    def current(self) -> WarmUp:
        return self.book.all()[0]

    def grows(self, pages: int, known: int) -> None:
        """End a pass that carried so many pages."""
        one = self.current
        self.book.change(one.id, passes=one.passes + 1, pages=one.pages + pages, known_pages=one.known_pages + known)


class Standing:
    """A warmer, its book with one plan, and the time."""

    def __init__(self, directory: Path, warm_ups: WarmUps, name: str = "hv1") -> None:
        self.book = PlanBook(None, lambda: False, directory, name)  # type: ignore[arg-type]  # no fleet is asked
        self.warm_ups, self.now = warm_ups, NOW
        self.warmer = PlanWarmer(self.book, warm_ups, lambda: self.now)  # type: ignore[arg-type]  # see `WarmUps`

    async def ask(self, *moves: WarmMove, waits: bool = False, bytes_per_s: float = 0.0) -> None:
        order = WarmFirst(begins_at=BEGINS_AT, waits=waits, bytes_per_s=bytes_per_s, moves=list(moves))
        request = PlanRequest(goal=Goal(purpose="drain", host="hv1"), warm_first=order)
        await self.book.put(PlanRecord(request=request, asked_at=NOW), 0)

    async def record(self) -> PlanRecord:
        return (await self.book.all())[0].record

    async def change(self, change: Callable[[PlanRecord], PlanRecord]) -> None:
        (stored,) = await self.book.all()
        await self.book.put(change(stored.record), stored.revision)

    async def looks(self, times: int = 1) -> None:
        for _ in range(times):
            await self.warmer.look()


@pytest.fixture
def standing(tmp_path: Path) -> Standing:
    return Standing(tmp_path, WarmUps())


async def test_guests_are_warmed_up_one_after_the_other_until_each_is_warm(standing: Standing) -> None:
    await standing.ask(VM1, VM2, bytes_per_s=5e6)
    warm_ups = standing.warm_ups
    await standing.looks(3)
    assert warm_ups.begun == [("vm1", "hv2", 5e6, GUEST_S_MAX)]
    warm_ups.grows(1000, 0)
    await standing.looks()
    assert not warm_ups.current.is_over
    warm_ups.grows(1000, 990)
    await standing.looks(2)
    assert [one.domain for one in warm_ups.book.running()] == ["vm2"]
    assert (await standing.record()).warmed == {"vm1": GuestWarmth(at=NOW, is_warm=True)}
    assert has_to_wait(await standing.record(), standing.now)
    warm_ups.grows(500, 500)
    await standing.looks(2)
    assert warm_ups.begun[1:] == [("vm2", "hv3", 5e6, GUEST_S_MAX)]
    assert not has_to_wait(await standing.record(), standing.now)


async def test_the_plans_helper_is_started_once_its_guests_are_warm(standing: Standing, tmp_path: Path) -> None:
    out = tmp_path / "started"
    helper = (sys.executable, "-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])", str(out))
    carrier = PlanCarrier(standing.book, tmp_path / "agent.toml", lambda: "running", helper, lambda: standing.now)
    await standing.ask(VM1)
    await standing.looks()
    await carrier._look()
    assert not out.exists()
    standing.warm_ups.grows(10, 10)
    await standing.looks()
    await carrier._look()
    assert out.read_text() == "1"


async def test_a_guest_has_no_more_time_than_the_plan_has(standing: Standing) -> None:
    await standing.ask(VM1)
    standing.now = BEGINS_AT - 60.0
    await standing.looks()
    assert standing.warm_ups.begun == [("vm1", "hv2", 0.0, 60.0)]
    standing.now = BEGINS_AT
    await standing.looks()
    assert standing.warm_ups.book.running() == []


async def test_what_is_refused_is_noted_in_words_and_keeps_nothing_back(standing: Standing) -> None:
    await standing.ask(VM1, VM2)
    standing.warm_ups.refusal = StoreError("this host has no page store")
    await standing.looks(REFUSALS_MAX - 1)
    assert (await standing.record()).warmed == {}
    await standing.looks(1 + REFUSALS_MAX)
    record = await standing.record()
    assert record.warmed == {name: GuestWarmth(at=NOW, words="this host has no page store") for name in ("vm1", "vm2")}
    assert not has_to_wait(record, NOW)


async def test_a_warm_up_that_fails_on_the_way_keeps_nothing_back_either(standing: Standing) -> None:
    await standing.ask(VM1)
    await standing.looks()
    standing.warm_ups.book.change("1", state="failed", error="hv2 refused: it has no page store")
    await standing.looks()
    record = await standing.record()
    assert record.warmed == {"vm1": GuestWarmth(at=NOW, words="hv2 refused: it has no page store")}
    assert not has_to_wait(record, NOW)


async def test_an_operators_warm_up_goes_first(standing: Standing) -> None:
    await standing.ask(VM1)
    other = await standing.warm_ups.begin("vm9", "hv2", 0.0, 0.0)
    await standing.looks(REFUSALS_MAX + 1)
    assert len(standing.warm_ups.begun) == 1
    standing.warm_ups.end(other.id)
    await standing.looks()
    assert [one.domain for one in standing.warm_ups.book.running()] == ["vm1"]


async def test_one_that_came_just_before_is_no_refusal(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    await standing.ask(VM1)
    warm_ups = standing.warm_ups

    async def overtaken(*_: Any) -> WarmUp:
        warm_ups.book.put(WarmUp(id="other", domain="vm9", uuid="u", peer="hv2", started_at=NOW))
        raise SessionError("a warm-up runs already")

    monkeypatch.setattr(warm_ups, "begin", overtaken)
    for _ in range(REFUSALS_MAX):
        await standing.looks()
        warm_ups.book.change("other", state="ended")
    assert (await standing.record()).warmed == {}


@pytest.mark.parametrize("wish", ["pause", "abort"])
async def test_a_warm_up_ends_with_its_plan_and_begins_again_with_it(standing: Standing, wish: Any) -> None:
    await standing.ask(VM1)
    await standing.looks()
    await standing.change(lambda one: plan_progress.wished(one, wish, NOW))
    await standing.looks(2)
    assert (standing.warm_ups.book.running(), (await standing.record()).warmed) == ([], {})
    if wish == "pause":
        await standing.change(lambda one: plan_progress.wished(one, "run", NOW))
        await standing.looks()
        assert [one.domain for one in standing.warm_ups.book.running()] == ["vm1"]


async def test_a_plan_that_is_taken_up_ends_its_warm_up(standing: Standing) -> None:
    await standing.ask(VM1)
    await standing.looks()
    await standing.change(lambda one: plan_progress.taken(one, "hv1", NOW))
    await standing.looks()
    assert standing.warm_ups.book.running() == []


async def test_without_shared_state_other_hosts_guests_are_left_to_nobody_in_words(standing: Standing) -> None:
    await standing.ask(FAR, VM1)
    await standing.looks()
    assert (await standing.record()).warmed == {"vm3": GuestWarmth(at=NOW, words=UNHEARD)}
    assert [one.domain for one in standing.warm_ups.book.running()] == ["vm1"]


async def test_an_outcome_is_written_over_others_changes_and_kept_where_it_cannot_be(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    await standing.ask(VM1)
    await standing.looks()
    standing.warm_ups.grows(10, 10)
    put, stale = standing.book.put, [warmers.NOTE_TRIES]

    async def overtaken(record: PlanRecord, revision: int) -> Any:
        if stale[0]:
            stale[0] -= 1
            raise StalePlanError("stale")
        return await put(record, revision)

    monkeypatch.setattr(standing.book, "put", overtaken)
    with pytest.raises(StalePlanError):
        await standing.looks()
    await standing.looks()
    assert (await standing.record()).warmed["vm1"].is_warm


async def test_hosts_of_a_fleet_warm_up_each_its_own_guests_of_one_plan(tmp_path: Path) -> None:
    async with world_of(tmp_path, CoordinationConfig(voters=NAMES)) as world:
        for name, host in world.hosts.items():
            await host.coordination.submit(PutHost(name=name, reads=VERSION))
        books = {name: PlanBook(world.hosts[name].coordination, lambda: True, tmp_path, name) for name in "abc"}
        warm_ups = {name: WarmUps() for name in books}
        warmers_of = {name: PlanWarmer(book, warm_ups[name], lambda: NOW) for name, book in books.items()}  # type: ignore[arg-type]
        order = WarmFirst(begins_at=BEGINS_AT, moves=[WarmMove("vm1", "a", "c"), WarmMove("vm2", "b", "c")])
        request = PlanRequest(goal=Goal(purpose="drain", host="a"), warm_first=order)
        await books["c"].put(PlanRecord(request=request), 0)
        async with asyncio.timeout(WAIT_S):
            while (
                len((await books["c"].all())[0].record.warmed) < 2
            ):  # a host hears of what others wrote a moment later
                await asyncio.gather(*(one.look() for one in warmers_of.values()))
                for name in "ab":
                    if warm_ups[name].book.running():
                        warm_ups[name].grows(10, 10)
        assert [[one[0] for one in warm_ups[name].begun] for name in "abc"] == [["vm1"], ["vm2"], []]
        (stored,), *_ = [await book.all() for book in books.values()]
        assert {name: one.is_warm for name, one in stored.record.warmed.items()} == {"vm1": True, "vm2": True}
        assert [due(await books[name].standing(), name, NOW) is not None for name in "abc"] == [False, False, True]


def test_a_guest_that_was_warm_stays_so_where_the_next_warm_up_fails() -> None:
    failed = WarmUp(id="a", domain="vm1", uuid="u", peer="hv2", started_at=NOW, state="failed", error="no answer")
    warm = GuestWarmth(at=NOW, is_warm=True)
    assert judge_outcome(failed, warm, 2000.0) == GuestWarmth(at=2000.0, is_warm=True, words="no answer")
    assert judge_outcome(failed, None, 2000.0) == GuestWarmth(at=2000.0, words="no answer")
    gone = replace(failed, state="ended", error="", detail="the guest does not run on this host any more")
    assert not judge_outcome(gone, None, 2000.0).is_warm


async def plan_of_web_1(hosts: Hosts) -> PlanBook:
    """Give the source's own agent a plan that moves its guest."""
    book = hosts.source._warmer._book
    order = WarmFirst(
        begins_at=hosts.source._warmer._clock() + 3600.0, moves=[WarmMove("web-1", "source.lab", "destination.lab")]
    )
    request = PlanRequest(goal=Goal(purpose="drain", host="source.lab"), warm_first=order)
    await book.put(PlanRecord(request=request, wish="run", carrier="elsewhere"), 0)
    return book


async def outcome(book: PlanBook) -> GuestWarmth:
    found: list[GuestWarmth] = []

    def look() -> bool:
        found[:] = book._file()[0].record.warmed.values()
        return bool(found)

    await until(look)
    return found[0]


@pytest.fixture
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmers, "LOOK_S", 0.05)
    monkeypatch.setattr("dwcp_migrate.agent.migrations.warm_outgoing.PASS_S", 1.0)


@pytest.mark.usefixtures("_looks_often")
async def test_the_agent_itself_warms_up_its_guests_of_a_plan(tmp_path: Path) -> None:
    async with started(Hosts(tmp_path)) as hosts:
        found = await outcome(await plan_of_web_1(hosts))
        assert (found.is_warm, found.words) == (True, "")
        (one,) = [one for one in hosts.source.runtime.warm_ups.all() if one.domain == "web-1"]
        assert (one.passes, one.pages > one.known_pages > 0) == (2, True)


@pytest.mark.usefixtures("_looks_often")
async def test_a_peer_without_a_store_lets_the_plan_go_on(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)
    hosts.stores["destination.lab"] = StoreConfig()
    async with started(hosts):
        book = await plan_of_web_1(hosts)
        found = await outcome(book)
        assert (found.is_warm, "store" in found.words) == (False, True)
        assert not has_to_wait(book._file()[0].record, hosts.source._warmer._clock())
