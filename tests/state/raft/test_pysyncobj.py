"""The library under the replica: its version, what it leaves open, and what is done otherwise than it does."""

import gc
import time
from pathlib import Path

import pytest

from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.state.fleet import commands
from dwcp_migrate.state.fleet.commands import Command, PutHost
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft import pysyncobj as library
from dwcp_migrate.state.raft.pysyncobj import check_library
from tests.state.raft.lone import Lone


def test_the_installed_library_is_the_one_that_was_tested() -> None:
    check_library()


@pytest.mark.parametrize(("name", "value"), [("TESTED_VERSION", "0.3.18"), ("HOOKS", ("_SyncObj__renamed",))])
def test_another_library_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(library, name, value)
    with pytest.raises(CoordinationError, match=r"0\.3\.17"):
        Lone(tmp_path)


def test_a_replica_that_is_closed_leaves_no_descriptor(tmp_path: Path) -> None:
    def held() -> set[str]:
        gc.collect()  # the library's poller is closed with its last reference
        return {each.name for each in Path("/proc/self/fd").iterdir()}

    before = held()
    Lone(tmp_path).replica.close()
    assert held() == before


def test_a_time_that_is_too_late_is_held_back_though_its_host_leads_only_since_it_was_asked(lone: Lone) -> None:
    ahead = Command(request="ahead", by="a", at=time.time() + 3600, body=PutHost(name="a"))
    lone.stands()
    lone.replica.submit(commands.encode_batch([commands.encode(ahead)]), lambda *_: None)
    lone.replica.message("b", messages.Vote(term=1))
    lone.replica.tick(0)
    (taken,) = [entry for entry, _, _ in lone.replica._journal[:] if b"ahead" in entry]
    ((_, at),) = commands.times(commands.decode_batch(taken[1:]))
    assert at < time.time() + 60


@pytest.mark.timeout(30)
def test_a_follower_far_behind_is_told_once_a_round_that_its_snapshot_is_not_ready(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lone.leads().replica._snapshots, "getTransmissionData", lambda _: None)
    behind = lone.replica._raft._SyncObj__raftNextIndex
    behind.update(dict.fromkeys(behind, 0))
    lone.sent.clear()
    lone.replica._raft._SyncObj__sendAppendEntries()
    told = [name for name, message in lone.sent if isinstance(message, messages.RaftSnapshot)]
    assert sorted(told) == sorted(node.id for node in behind)
    lone.replica._raft._SyncObj__sendAppendEntries()
    assert len(lone.sent) == 2 * len(told)
