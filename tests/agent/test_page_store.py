"""Whose pages a migration's are is this host's word; a store that cannot be used costs a line in the log."""

import threading
from pathlib import Path

import pytest

from dwcp_migrate.agent import page_store
from dwcp_migrate.agent.page_store import PageStore
from dwcp_migrate.api.usage import StoreUse
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import Config, StoreConfig, StoreScopeConfig
from dwcp_migrate.protocol.control import DomainName
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.store.writer import StoreFiller
from dwcp_migrate.units import MIB
from tests.store.pages import some_pages

WEB, DB = DomainName("u-web", "web-1"), DomainName("u-db", "db-1")


def store_of(directory: Path, bytes_max: int = 64 * MIB) -> PageStore:
    scopes = (StoreScopeConfig(name="web", domains=("web-*",)),)
    return PageStore(
        lambda: Config(store=StoreConfig(bytes_max=bytes_max, directory=str(directory / "store"), scopes=scopes))
    )


def test_the_scope_is_that_of_the_one_domain_that_it_may_be(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    found = [store.options([WEB]), store.options([DB]), store.options([WEB, DB], "u-db")]
    assert [options.scope for options in found if options is not None] == ["web", "domain:u-db", "domain:u-db"]
    assert [store.options(*unknown) for unknown in (([WEB, DB],), ([],), ([WEB], "u-db"))] == [None, None, None]


def test_nothing_is_stated_to_who_asks_for_another_scope_or_for_none(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    options = store.options([WEB])
    assert [len(store.key_for(options, asked)) for asked in ("web", "", "domain:u-db")] == [32, 0, 0]
    assert store.key_for(None, "web") == b""
    assert store.key_for(store.options([DB]), "domain:u-db") != store.key_for(options, "web")


def test_a_store_that_is_off_or_cannot_be_used_states_nothing(tmp_path: Path) -> None:
    assert store_of(tmp_path, 0).options([WEB]) is None
    assert store_of(tmp_path, 0).shelf() is None
    (tmp_path / "store").write_text("no directory")
    broken = store_of(tmp_path)
    assert broken.shelf() is None
    assert broken.key_for(broken.options([WEB]), "web") == b""


async def test_a_directory_that_hangs_states_nothing_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, let_go = store_of(tmp_path), threading.Event()
    options = store.options([WEB])
    assert len(await store.key_in_time(options, "web")) == 32
    monkeypatch.setattr(page_store, "KEY_S_MAX", 0.05)
    monkeypatch.setattr(store, "shelf", let_go.wait)
    assert await store.key_in_time(options, "web") == b""
    let_go.set()


async def looked_at(store: PageStore) -> StoreUse:
    """Let the store be looked at once."""
    assert store.use().looked_at == 0
    await store.tidy()
    return store.use()


async def test_what_the_store_holds_is_told_by_where_it_came_from(tmp_path: Path) -> None:
    store, now = store_of(tmp_path), wall_clock()
    shelf = store.shelf()
    assert shelf is not None
    StoreFiller(shelf, "web", "sent").fill(some_pages(100), now - 50)
    StoreFiller(shelf, "web", "received").fill(some_pages(40, seed=1), now)
    use = await looked_at(store)
    assert {fill: share.pages for fill, share in use.fills.items()} == {"sent": 100, "received": 40}
    assert use.held_bytes == sum(found.held_bytes for found in shelf.volumes())
    assert (use.pages, use.bytes_max, use.directory, use.error) == (140, 64 * MIB, str(shelf.root), "")
    assert abs(use.oldest_use_at - (now - 50)) < 1


async def test_a_store_that_cannot_be_used_says_why_and_one_that_is_off_says_nothing(tmp_path: Path) -> None:
    assert store_of(tmp_path, 0).use() == StoreUse()
    (tmp_path / "store").mkdir(mode=0o755)
    use = await looked_at(store_of(tmp_path))
    assert use.error.endswith("is open to others")
    assert (use.bytes_max, use.fills) == (64 * MIB, {})


async def test_a_file_system_that_is_too_full_leaves_the_store_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shelf, "free_bytes", lambda _: -1)
    assert (await looked_at(store_of(tmp_path))).room_bytes == 0
    monkeypatch.setattr(Shelf, "free_bytes", lambda _: 5 * MIB)
    assert 5 * MIB <= (await looked_at(store_of(tmp_path))).room_bytes < 6 * MIB
    monkeypatch.setattr(Shelf, "free_bytes", lambda _: 500 * MIB)
    assert (await looked_at(store_of(tmp_path))).room_bytes == 64 * MIB
