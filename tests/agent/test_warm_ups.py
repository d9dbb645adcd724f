"""Warm-ups between two real agents and their data processes; files in the place of guests' memory."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.daemon import Agent
from dwcp_migrate.agent.migrations import warm_outgoing
from dwcp_migrate.agent.migrations.warm_outgoing import OutgoingWarmUps
from dwcp_migrate.agent.systemd import Notifier
from dwcp_migrate.agent.tracking.warm_book import ENDED_MAX, WarmBook
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.warm import WarmUp
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import (
    BandwidthConfig,
    Config,
    CoordinationConfig,
    EncodingConfig,
    InterceptConfig,
    LinkConfig,
    PeerConfig,
    StoreConfig,
    StoreScopeConfig,
    TlsConfig,
)
from dwcp_migrate.errors import NotFoundError, SessionError, StoreError
from dwcp_migrate.hypervisor.base import DomainInfo
from dwcp_migrate.hypervisor.fake import FakeInterceptor, FakeWatcher
from dwcp_migrate.protocol import control
from dwcp_migrate.protocol.control import VERSIONS, DomainName, Refused, Warm, Warmed
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.units import MIB, PAGE_BYTES
from tests.agent.hosts import make_authority

UUID = "0123abcd-0000-1111-2222-333344445555"
WEB = DomainInfo(uuid=UUID, name="web-1", memory_bytes=16 * MIB)
SCOPES = (StoreScopeConfig(name="web", domains=("web-*",)),)
PORTS = {"source.lab": 17802, "destination.lab": 17803}
ADDRESSES = {"source.lab": "127.0.0.3", "destination.lab": "127.0.0.2"}
"""None is 127.0.0.1, from which both dial: a peer at an address of this host would be no peer."""
WAIT_S = 60.0


def memory_of(mebibytes: int) -> bytes:
    """A guest's memory: all pages different, every fourth zero."""
    pages = np.random.default_rng(1).integers(1, 1 << 62, (mebibytes * MIB // PAGE_BYTES, 512), np.uint64)
    pages[::4] = 0
    return pages.tobytes()


def config_of(directory: Path, name: str, store: StoreConfig, **settings: object) -> Config:
    tls = directory / "tls"
    other = next(each for each in PORTS if each != name)
    return Config(
        name=name,
        libvirt_uri=f"file:{directory / 'guests'}",
        runtime_directory=directory / name / "run",
        state_directory=directory / name / "state",
        tls=TlsConfig(ca=tls / "ca.pem", certificate=tls / f"{name}.pem", key=tls / f"{name}.key"),
        link=LinkConfig(listen=ADDRESSES[name], port=PORTS[name]),
        intercept=InterceptConfig(redirect=False),
        metrics_listen="",
        store=store,
        peers=[PeerConfig(name=other, addresses=[ADDRESSES[other]], port=PORTS[other])],
        **settings,  # type: ignore[arg-type]
    )


class Hosts:
    """Two agents in this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make_authority(_made(directory / "tls"))
        _made(directory / "guests").joinpath(UUID).write_bytes(memory_of(16))
        self.stores = {
            name: StoreConfig(bytes_max=256 * MIB, directory=str(directory / name / "store"), scopes=SCOPES)
            for name in PORTS
        }
        self.watchers = {"source.lab": FakeWatcher([WEB]), "destination.lab": FakeWatcher()}
        self.agents: dict[str, Agent] = {}

    async def start(self) -> None:
        for name in PORTS:
            directory = _made(self.directory / name)
            agent = self.agents[name] = Agent(
                config_of(self.directory, name, self.stores[name]),
                directory / "agent.toml",
                interceptor=FakeInterceptor,
                watcher=self.watchers[name],
                notifier=Notifier({}, os.getpid()),
            )
            await agent.start()

    async def close(self) -> None:
        for agent in self.agents.values():
            await agent.close()

    @property
    def source(self) -> Agent:
        return self.agents["source.lab"]

    @property
    def destination(self) -> Agent:
        return self.agents["destination.lab"]

    def reconfigure(self, name: str, store: StoreConfig) -> None:
        runtime = self.agents[name].runtime
        runtime.config = replace(runtime.config, store=store)

    async def empty_the_destinations_store(self) -> None:
        """Empty it once the data process that fills it has gone."""
        await until(lambda: self.destination.incoming.warm_ups._process is None)
        shutil.rmtree(self.stores["destination.lab"].directory)

    def is_under_way(self) -> bool:
        """Both hosts have a data process at work."""
        return None not in (self.source.outgoing.warm_ups._process, self.destination.incoming.warm_ups._process)

    @contextlib.contextmanager
    def memory_that_hangs(self) -> Iterator[None]:
        """Have whoever opens the guest's memory wait for ever."""
        file = self.directory / "guests" / UUID
        file.rename(file.with_suffix(".kept"))
        os.mkfifo(file)
        yield
        file.unlink()
        file.with_suffix(".kept").rename(file)

    async def begin(self, for_s: float = 0.0, bytes_per_s: float = 0.0) -> WarmUp:
        return await self.source.outgoing.warm_ups.begin("web-1", "destination.lab", bytes_per_s, for_s)

    async def wait(self, one: WarmUp, holds: Callable[[WarmUp], bool]) -> WarmUp:
        """Wait until the record is as it should be."""

        def look() -> bool:
            found = self.source.runtime.warm_ups.find(one.id)
            assert holds(found) or not found.is_over, found
            return holds(found)

        await until(look)
        return self.source.runtime.warm_ups.find(one.id)

    async def over(self, one: WarmUp) -> WarmUp:
        return await self.wait(one, lambda found: found.is_over)

    async def stored(self, pages: int) -> None:
        """Wait until the destination's store has so many pages of the scope."""
        shelf = Shelf(Path(self.stores["destination.lab"].directory), 256 * MIB)
        await until(lambda: sum(volume.head.pages for volume in shelf.volumes("web")) >= pages)


async def until(holds: Callable[[], bool]) -> None:
    """Look until something holds; what is looked at tells nobody when it changes."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextlib.asynccontextmanager
async def started(hosts: Hosts) -> AsyncIterator[Hosts]:
    try:
        await hosts.start()
        yield hosts
    finally:
        await hosts.close()


def migration(identity: str) -> Migration:
    return Migration(
        id=identity, role="source", peer="destination.lab", address="", port=49152, started_at=wall_clock(), version=""
    )


def a_migration_begins(agent: Agent) -> str:
    """Begin one in the agent's books; returns its id."""
    identity = os.urandom(16).hex()
    agent.ledger.put(migration(identity))
    return identity


async def test_a_warm_up_fills_the_peers_store_and_counts_as_no_migration(tmp_path: Path) -> None:
    async with started(Hosts(tmp_path)) as hosts:
        found = await hosts.over(await hosts.begin())
        filled = 15 * MIB // PAGE_BYTES * 3 // 4  # without the hole
        assert (found.state, found.error, found.passes) == ("ended", "", 1)
        assert filled * 0.99 <= found.pages <= filled  # one that comes alone in its segment is not looked at
        assert (found.known_pages, found.readable_bytes) == (0, 15 * MIB)
        assert found.wire_bytes > 0
        await hosts.stored(filled * 98 // 100)
        status = hosts.source.status()
        assert [one.id for one in status.warm_ups] == [found.id]
        assert (status.migrations, status.totals.migrations, hosts.source.ledger.recent()) == ([], {}, [])
        again = await hosts.over(await hosts.begin())
        assert again.known_pages > filled * 0.98
        assert again.wire_bytes * 5 < found.wire_bytes
        await until(lambda: not any(agent.runtime.memory.granted_bytes for agent in hosts.agents.values()))


async def test_a_guest_larger_than_the_caches_is_brought_in_several_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(Hosts(tmp_path)) as hosts:
        encoding = EncodingConfig(cache_bytes=4 * MIB)
        hosts.destination.runtime.config = replace(hosts.destination.runtime.config, encoding=encoding)
        began: list[int] = []

        def judge(*what: Any) -> int:
            began.append(what[3])
            return judged(*what)

        judged = OutgoingWarmUps._judged
        monkeypatch.setattr(OutgoingWarmUps, "_judged", judge)
        found = await hosts.over(await hosts.begin())
        assert found.state == "ended"
        assert found.raw_bytes // (PAGE_BYTES + 8) == 15 * MIB // PAGE_BYTES * 3 // 4
        assert len(began) == 3
        assert began == sorted(set(began))
        await hosts.stored(found.pages * 98 // 100)


@pytest.mark.parametrize("side", ["source.lab", "destination.lab"])
async def test_a_migration_that_begins_ends_the_session_at_once_and_the_warm_up_goes_on_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr(warm_outgoing, "RETRY_S", 0.1)
    async with started(Hosts(tmp_path)) as hosts:
        with hosts.memory_that_hangs():
            one = await hosts.begin()
            await until(hosts.is_under_way)
            identity = a_migration_begins(hosts.agents[side])
            assert hosts.agents[side].runtime.memory.granted_bytes == 0
            await hosts.wait(one, lambda found: found.state == "waiting" and "migration" in found.detail)
        hosts.agents[side].ledger.discard(identity)
        assert (await hosts.over(one)).state == "ended"


async def test_a_guest_that_left_ends_its_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_outgoing, "RETRY_S", 0.1)
    async with started(Hosts(tmp_path)) as hosts:
        identity = a_migration_begins(hosts.source)
        one = await hosts.begin()
        await hosts.wait(one, lambda found: found.state == "waiting")
        hosts.watchers["source.lab"].running.clear()
        hosts.source.ledger.discard(identity)
        found = await hosts.over(one)
        assert (found.state, found.detail) == ("ended", "the guest does not run on this host any more")


async def test_passes_are_repeated_until_the_command_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_outgoing, "PASS_S", 0.1)
    async with started(Hosts(tmp_path)) as hosts:
        one = await hosts.begin(for_s=600)
        await hosts.wait(one, lambda found: found.passes == 2)
        hosts.source.outgoing.warm_ups.end(one.id)
        found = await hosts.over(one)
        assert (found.state, found.detail) == ("ended", "ended by command")
        assert found.pages > 15 * MIB // PAGE_BYTES


async def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)
    hosts.stores["destination.lab"] = StoreConfig()
    async with started(hosts):
        found = await hosts.over(await hosts.begin())
        assert (found.state, found.hint) == ("failed", "set store.bytes_max there, see docs/known-pages.md")
        hosts.reconfigure("destination.lab", StoreConfig(bytes_max=MIB, directory=str(tmp_path / "d")))
        found = await hosts.over(await hosts.begin())
        assert (found.state, found.hint) == ("failed", "make [[store.scopes]] the same on both hosts")
        (tmp_path / "guests" / UUID).unlink()
        hosts.reconfigure("destination.lab", hosts.stores["source.lab"])
        found = await hosts.over(await hosts.begin())
        assert (found.state, found.error) == ("failed", f"GuestMemoryError: domain {UUID}: No such file or directory")
        hosts.destination.ledger.set_state("draining")
        assert "draining" in (await hosts.over(await hosts.begin())).error
        begin = hosts.source.outgoing.warm_ups.begin
        with pytest.raises(NotFoundError, match="no guest"):
            await begin("db-1", "destination.lab", 0.0, 0.0)
        with pytest.raises(NotFoundError, match="no peer"):
            await begin("web-1", "another.lab", 0.0, 0.0)
        hosts.reconfigure("source.lab", StoreConfig())
        with pytest.raises(StoreError, match="no page store"):
            await hosts.begin()
        hosts.source.ledger.set_state("draining")
        with pytest.raises(SessionError, match="draining"):
            await hosts.begin()


async def test_a_peer_of_another_trust_domain_and_one_that_is_busy_are_refused(tmp_path: Path) -> None:
    async with started(Hosts(tmp_path)) as hosts:
        runtime = hosts.destination.runtime
        peer = runtime.directory.by_name("source.lab")
        assert peer is not None
        request = Warm(
            versions=VERSIONS,
            session_id=os.urandom(16),
            token=os.urandom(32),
            domain=DomainName(UUID, "web-1"),
            scope="web",
            cache_bytes=MIB,
            window_bytes=MIB,
            channels_max=4,
        )
        opened, second = await asyncio.gather(
            hosts.destination.incoming.answer(peer, request),
            hosts.destination.incoming.answer(peer, replace(request, session_id=os.urandom(16))),
        )
        assert isinstance(opened, Warmed)
        assert isinstance(second, Refused)
        assert second.code == "migrates"
        hosts.destination.incoming.warm_ups.make_way()
        runtime.config = replace(runtime.config, coordination=CoordinationConfig(trust_domain="here"))
        foreign = replace(peer, trust_domain="there")
        answer = await hosts.destination.incoming.answer(foreign, request)
        assert isinstance(answer, Refused)
        assert answer.code == "trust-domain"


async def test_an_older_peer_is_said_to_be_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(Hosts(tmp_path)) as hosts:
        monkeypatch.delitem(control._bodies, "warm")
        found = await hosts.over(await hosts.begin())
        assert (found.state, found.hint) == ("failed", "upgrade the agent there")


async def test_a_warm_up_is_held_to_its_rate_and_to_the_links(tmp_path: Path) -> None:
    async with started(Hosts(tmp_path)) as hosts:
        bandwidth = BandwidthConfig(link_bytes_per_s_max=4 * MIB)
        hosts.source.runtime.config = replace(hosts.source.runtime.config, bandwidth=bandwidth)
        for rate in (2 * MIB, 8 * MIB):
            found = await hosts.over(await hosts.begin(bytes_per_s=rate))
            seconds = found.ended_at - found.started_at
            assert seconds > found.wire_bytes / min(rate, 4 * MIB) * 0.8
            assert found.state == "ended"
            await hosts.empty_the_destinations_store()


async def test_an_agent_that_ends_takes_its_warm_up_along_and_what_came_is_kept(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)
    async with started(hosts):
        one = await hosts.begin(bytes_per_s=MIB)
        await hosts.wait(one, lambda found: found.wire_bytes > 2 * MIB)
    await hosts.stored(200)
    assert hosts.source.runtime.warm_ups.find(one.id).error == "the agent ended"


async def test_one_warm_up_at_a_time_leaves_a_host(tmp_path: Path) -> None:
    async with started(Hosts(tmp_path)) as hosts:
        one = await hosts.begin()
        with pytest.raises(SessionError, match="runs already"):
            await hosts.begin()
        hosts.source.outgoing.warm_ups.end(one.id)
        await hosts.over(one)


def test_the_book_keeps_the_last_that_ended() -> None:
    book = WarmBook()
    for number in range(ENDED_MAX + 3):
        book.put(WarmUp(id=str(number), domain="a", uuid=UUID, peer="b", started_at=0.0))
        book.change(str(number), state="ended")
    assert [one.id for one in book.all()] == [str(number) for number in reversed(range(2, ENDED_MAX + 3))]
    book.change("5", state="running")
    assert book.find("5").state == "ended"
    with pytest.raises(NotFoundError):
        book.find("0")
