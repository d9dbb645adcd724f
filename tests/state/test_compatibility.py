"""What release 0.1.0 wrote is read, and what this one writes says what it takes to read it.

`golden/release_0_1_0.json` holds bytes as that release wrote them: each command, each message between replicas, a log,
votes, a snapshot.
"""

import json
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.errors import CoordinationError, RemoteProtocolError
from dwcp_migrate.state.fake import FakeEngine
from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.commands import Command
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.state.raft import messages, snapshots
from dwcp_migrate.state.raft.disk import Disk
from dwcp_migrate.state.raft.log_file import LogFile
from tests.state.engines import lone_raft

GOLDEN = json.loads((Path(__file__).parent / "golden/release_0_1_0.json").read_text())

BODIES: dict[str, do.Body] = {
    "PutHost": do.PutHost(
        name="hv1",
        trust_domain="east",
        labels={"rack": "r1"},
        capacity=model.HostCapacity(cpus=64, memory_bytes=2**38),
    ),
    "SetHostState": do.SetHostState(name="hv1", state="draining"),
    "RemoveHost": do.RemoveHost(name="hv1"),
    "PutDomain": do.PutDomain(uuid="u1", name="web", memory_bytes=2**32),
    "ForgetDomain": do.ForgetDomain(uuid="u1"),
    "SetLimits": do.SetLimits(
        limits=model.Limits(fleet=3, outgoing=2, incoming=1, link_bytes_per_s={"hv1>hv2": 10**9})
    ),
    "PutRule": do.PutRule(
        rule=model.RuleRecord(
            name="apart", kind="apart", domains=["web", "db"], level="rack", limit=2, hard=False, weight=0.5
        )
    ),
    "DropRule": do.DropRule(name="apart"),
    "Propose": do.Propose(
        uuid="u1",
        name="web",
        source="hv1",
        destination="hv2",
        lifetime_s=60.0,
        generation=7,
        certificate=b"proof",
    ),
    "Begin": do.Begin(token=5),
    "Resume": do.Resume(token=5),
    "Fail": do.Fail(token=5, reason="cancelled"),
    "Resolve": do.Resolve(token=5, source_runs=True, destination_runs=None),
    "HandOver": do.HandOver(uuid="u1", destination="hv2"),
    "Acquire": do.Acquire(name="lock", lifetime_s=5.5),
    "Release": do.Release(name="lock", token=9),
    "Reserve": do.Reserve(name="share", source="hv1", destination="hv2", bytes_per_s=10**8, lifetime_s=30.0),
    "Unreserve": do.Unreserve(name="share", token=11),
    "Barrier": do.Barrier(padding=b"pad"),
}

NEW: dict[str, do.Body] = {
    "PutReach": do.PutReach(name="hv1", reach=model.HostReach(addresses=("192.0.2.1",))),
    "ForgetHost": do.ForgetHost(name="hv1"),
    "DropDomain": do.DropDomain(uuid="u1"),
    "AssignDomain": do.AssignDomain(uuid="u1", owner="hv2"),
    "EndTicket": do.EndTicket(token=5, reason="gone"),
    "SetClock": do.SetClock(),
    "SetVersion": do.SetVersion(version=2),
    "PutDocument": do.PutDocument(name="plan 1", revision=7, body=b"text"),
    "DropDocument": do.DropDocument(name="plan 1", revision=7),
}

NEW_GOLDEN = {
    "PutReach": "9502a572756e2d31a3687631cb41daac4ee000000083a2646fa87075747265616368a46e616d65a3687631a57265616368"
    "85a961646472657373657391a93139322e302e322e31b16d6967726174696f6e5f61646472657373a0a4706f7274cd1e7a"
    "a8706f72745f6d696ecdc000a8706f72745f6d6178cdc03f",
    "ForgetHost": "9502a572756e2d31a3687631cb41daac4ee000000082a2646faa666f72676574686f7374a46e616d65a3687631",
    "DropDomain": "9502a572756e2d31a3687631cb41daac4ee000000082a2646faa64726f70646f6d61696ea475756964a27531",
    "AssignDomain": "9502a572756e2d31a3687631cb41daac4ee000000083a2646fac61737369676e646f6d61696e"
    "a475756964a27531a56f776e6572a3687632",
    "EndTicket": "9502a572756e2d31a3687631cb41daac4ee000000083a2646fa9656e647469636b6574a5746f6b656e05"
    "a6726561736f6ea4676f6e65",
    "SetClock": "9502a572756e2d31a3687631cb41daac4ee000000081a2646fa8736574636c6f636b",
    "SetVersion": "9502a572756e2d31a3687631cb41daac4ee000000082a2646faa73657476657273696f6ea776657273696f6e02",
    "PutDocument": "9502a572756e2d31a3687631cb41daac4ee000000084a2646fab707574646f63756d65"
    "6e74a46e616d65a6706c616e2031a87265766973696f6e07a4626f6479c40474657874",
    "DropDocument": "9502a572756e2d31a3687631cb41daac4ee000000083a2646fac64726f70646f63756d"
    "656e74a46e616d65a6706c616e2031a87265766973696f6e07",
}

ADDED = {"PutHost"}
"""Commands of 0.1.0 with a field that it does not know, and reads over."""


def written(body: do.Body) -> bytes:
    return do.encode(Command(request="run-1", by="hv1", at=1.79e9, body=body))


def test_every_command_has_golden_bytes() -> None:
    kinds = {kind.__name__ for kind in do.Body.__args__}
    assert kinds == set(GOLDEN["commands"]) | set(NEW_GOLDEN) == set(BODIES) | set(NEW)


@pytest.mark.parametrize("name", BODIES)
def test_a_command_of_release_0_1_0_is_read_and_written_alike(name: str) -> None:
    data = bytes.fromhex(GOLDEN["commands"][name])
    assert do.decode(data) == Command(request="run-1", by="hv1", at=1.79e9, body=BODIES[name])
    if name in ADDED:
        old, new = msgspec.msgpack.decode(data), msgspec.msgpack.decode(written(BODIES[name]))
        assert old[:4] == new[:4]
        assert old[4].items() <= new[4].items()
    else:
        assert written(BODIES[name]) == data


@pytest.mark.parametrize("name", NEW)
def test_a_new_command_says_the_version_that_reads_it(name: str) -> None:
    data = written(NEW[name])
    assert data.hex() == NEW_GOLDEN[name]
    assert do.decode(data).version == NEW[name].since == 2
    forged = b"\x95\x01" + data[2:]
    with pytest.raises(RemoteProtocolError, match="is of version 2"):
        do.decode(forged)


@pytest.mark.parametrize("name", GOLDEN["messages"])
def test_a_message_of_release_0_1_0_is_read(name: str) -> None:
    data = bytes.fromhex(GOLDEN["messages"][name])
    (message,) = messages.raft_frames().feed(data)
    if isinstance(message, messages.Stale):
        assert message == messages.Stale(term=6)
    else:
        assert messages.encode(message) == data


def test_a_greeting_is_to_release_0_1_0_a_stale_of_no_consequence() -> None:
    data = messages.encode(messages.Stale(term=0, origin=("a",), voters=("a",)))
    assert msgspec.msgpack.decode(data[4:])[:2] == [8, 0]


def test_a_log_a_vote_and_a_snapshot_of_release_0_1_0_are_read(tmp_path: Path) -> None:
    for name, data in GOLDEN["files"].items():
        (tmp_path / name).write_bytes(bytes.fromhex(data).ljust(1024 if name == "vote" else 0, b"\0"))
    log = LogFile(tmp_path, Disk())
    assert (log.last, log.term, log.voted_for, log.commit) == ((2, 1), 3, "hv2", 2)
    batch = do.decode_batch(bytes.fromhex(GOLDEN["entry"]))
    assert log[1][0][1:].hex() == GOLDEN["entry"]
    log.close()
    image = snapshots.decode((tmp_path / "snapshot").read_bytes())
    assert image.voters == ("hv1", "hv2", "hv3")
    restored, applied = FleetMachine(), FleetMachine()
    restored.restore(image.state)
    applied.apply(batch)
    assert applied.fleet == restored.fleet
    assert restored.fleet.domains["u1"].owner == "hv1"


def test_a_state_that_nobody_raised_is_one_that_release_0_1_0_reads() -> None:
    machine = FleetMachine()
    machine.apply([written(body) for body in BODIES.values()])
    assert machine.fleet.version == model.FIRST_VERSION == 1


async def test_what_a_host_does_not_read_is_not_proposed() -> None:
    machine = FleetMachine()
    engine = FakeEngine("a", machine, lambda: 1.0)
    await engine.submit(do.PutHost(name="a", reads=2), 1.0)
    await FakeEngine("b", machine, lambda: 1.0).submit(do.PutHost(name="b"), 1.0)
    with pytest.raises(CoordinationError, match="b: the software there"):
        await engine.submit(do.SetClock(), 1.0)
    await FakeEngine("b", machine, lambda: 1.0).submit(do.PutHost(name="b", reads=2), 1.0)
    assert (await engine.submit(do.SetClock(), 1.0)).code == ""


async def test_a_host_that_is_gone_does_not_keep_itself_from_being_forgotten() -> None:
    machine = FleetMachine()
    engine = FakeEngine("a", machine, lambda: 1.0)
    await engine.submit(do.PutHost(name="a", reads=2), 1.0)
    await FakeEngine("b", machine, lambda: 1.0).submit(do.PutHost(name="b"), 1.0)
    assert (await engine.submit(do.ForgetHost(name="b"), 1.0)).code == ""


async def test_a_voter_that_has_not_said_what_it_reads_counts_as_one_of_the_first_release(tmp_path: Path) -> None:
    async with lone_raft(tmp_path, lambda: 1.0) as engine:
        with pytest.raises(CoordinationError, match="a: the software there"):
            await engine.submit(do.SetVersion(version=2), 20.0)
        await engine.submit(do.PutHost(name="a", reads=2), 20.0)
        assert (await engine.submit(do.SetVersion(version=2), 20.0)).code == ""
        with pytest.raises(CoordinationError, match="does not read"):
            await engine.submit(do.SetVersion(version=3), 20.0)
