"""Peers whose links outrun this host are left alone: connections to them are not caught while QEMU alone is faster."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.agent.migrations.left_alone import PeersLeftAlone, reason_to_leave_alone
from dwcp_migrate.agent.peers.directory import PeerDirectory, SilentPeers
from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.memory_budget import MemoryBudget
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.config import Config, CoordinationConfig, MigrationPolicy, PeerConfig
from dwcp_migrate.hypervisor.announcements import Announcements
from dwcp_migrate.hypervisor.base import DomainEvent
from dwcp_migrate.hypervisor.fake import FakeWatcher
from tests.agent.migrations.test_step_aside import NOW, accelerated

if TYPE_CHECKING:
    from dwcp_migrate.agent.peers.client import ControlClient
    from dwcp_migrate.dataplane.process_pool import DataProcessPool

ADDRESSES = frozenset(["192.0.2.2", "2001:db8::2"])
UUID = "e42bc6e0-0000-0000-0000-000000000001"


class Source:
    """A host with libvirt, two peers, and the record of a migration that the link to one of them outran."""

    def __init__(self, directory: Path) -> None:
        self.watcher = FakeWatcher()
        ledger = MigrationRegistry(MigrationHistory(directory), time.time)
        peers = [PeerConfig(name="b", addresses=[*ADDRESSES]), PeerConfig(name="c", addresses=["192.0.2.3"])]
        self.runtime = Runtime(
            config=Config(name="a", policy=MigrationPolicy(step_aside="auto")),
            name="a",
            directory=PeerDirectory(peers, "a", lambda _: False),
            silent=SilentPeers(1.0),
            announcements=Announcements(1.0),
            ledger=ledger,
            spares=cast("DataProcessPool", None),
            control=cast("ControlClient", None),
            domains=DomainTracker(self.watcher, ledger),
            memory=MemoryBudget(lambda: 0, lambda: 32),
            disk=DiskThread(),
            keep_translation=list,
        )
        self.left_alone = PeersLeftAlone(self.runtime)

    def require(self) -> None:
        """Have migrations agreed to from now on."""
        self.runtime.config = replace(self.runtime.config, coordination=CoordinationConfig(require=True))

    def carries(self) -> None:
        running = replace(accelerated(), id="1" * 32, state="precopy 1", result="", ended_at=0.0, peer="c")
        self.runtime.ledger.put(running)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr("dwcp_migrate.agent.migrations.left_alone.wall_clock", lambda: NOW)
    made = Source(tmp_path)
    made.runtime.ledger.put(accelerated())
    return made


async def test_a_peer_whose_link_outran_the_last_migration_is_left_alone_with_all_its_addresses(
    source: Source,
) -> None:
    await source.runtime.domains.start()
    assert source.left_alone.addresses() == ADDRESSES
    assert "left the link idle" in source.left_alone.reasons["b"]
    await source.runtime.domains.close()


async def test_none_is_left_alone_where_libvirt_is_silent_since_nobody_would_tell_of_its_migrations(
    source: Source,
) -> None:
    assert source.left_alone.addresses() == frozenset()


@pytest.mark.parametrize("policy", ["encrypted", "never"])
async def test_none_is_left_alone_where_bytes_may_not_go_in_clear(source: Source, policy: str) -> None:
    source.runtime.config = Config(name="a", policy=MigrationPolicy(step_aside=policy))  # type: ignore[arg-type]
    await source.runtime.domains.start()
    assert source.left_alone.addresses() == frozenset()
    await source.runtime.domains.close()


async def test_none_is_left_alone_whose_migrations_have_to_be_agreed_to(source: Source) -> None:
    source.require()
    await source.runtime.domains.start()
    assert source.left_alone.addresses() == frozenset()
    await source.runtime.domains.close()


def test_a_check_says_of_such_a_peer_no_more_than_a_migration_would(source: Source) -> None:
    peer = source.runtime.directory.by_name("b")
    assert peer is not None
    ended = source.runtime.ledger.recent()
    assert "left the link idle" in reason_to_leave_alone(source.runtime, peer, ended)
    source.require()
    assert not reason_to_leave_alone(source.runtime, peer, ended)


async def test_nothing_changes_while_a_migration_that_was_caught_leaves_this_host(source: Source) -> None:
    await source.runtime.domains.start()
    source.carries()
    assert source.left_alone.addresses() == frozenset()
    source.runtime.ledger.put(replace(source.runtime.ledger.running()[0], state="ended", result="failed"))
    assert source.left_alone.addresses() == ADDRESSES
    source.carries()
    source.require()
    assert source.left_alone.addresses() == ADDRESSES
    await source.runtime.domains.close()


async def test_nothing_changes_while_libvirt_speaks_of_a_migration_that_was_not_caught(source: Source) -> None:
    await source.runtime.domains.start()
    assert source.left_alone.addresses() == ADDRESSES
    source.watcher.say(DomainEvent("iteration", UUID, "db1", number=1))
    source.require()
    assert source.left_alone.addresses() == ADDRESSES
    source.watcher.say(DomainEvent("left", UUID, "db1"))
    assert source.left_alone.addresses() == frozenset()
    await source.runtime.domains.close()
