"""State transfer: it ends under load, takes no part twice, and depends on no slow source."""

from dwcp_migrate.consensus import Options, PbftReplica
from dwcp_migrate.consensus.pbft.model.checkpoints import sign_checkpoint
from dwcp_migrate.consensus.pbft.model.client_table import ClientTable
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import (
    STATE_PART_BYTES,
    FetchState,
    Message,
    ReplicaStatus,
    StableProof,
    StateManifest,
    StatePart,
)
from dwcp_migrate.consensus.pbft.model.snapshot import GroupSnapshot, Header, take_snapshot
from dwcp_migrate.consensus.pbft.state_transfer import PARTS_AHEAD, PARTS_IN_TIMEOUT, SERVED_MAX, SERVED_TIMEOUTS
from tests.consensus.members import identity, membership

MEMBERS = membership(4)
OPTIONS = Options(request_timeout_s=1.0, status_s=0.25)
PARTS = 40


class Blob:
    """An application whose state is bytes."""

    def __init__(self) -> None:
        self.data = b""

    def apply(self, operation: bytes, context: object) -> bytes:
        del operation, context
        return b""

    def snapshot(self) -> bytes:
        return self.data

    def restore(self, data: bytes) -> None:
        self.data = data


def blob(changed: bytes = b"") -> bytes:
    """A state of many parts; a change of the same length touches the last one."""
    data = b"".join(bytes([number]) * STATE_PART_BYTES for number in range(PARTS))
    return data[: len(data) - len(changed)] + changed


def state(sequence: int, data: bytes) -> tuple[StableProof, GroupSnapshot]:
    taken = take_snapshot(Header(sequence, 0, MEMBERS, 0), ClientTable(), data)
    votes = {f"r{at}": sign_checkpoint(identity(f"r{at}"), Group(MEMBERS), sequence, taken.digest) for at in range(3)}
    return StableProof(0, sequence, taken.digest, {name: vote.signature for name, vote in votes.items()}), taken


def replica(name: str) -> PbftReplica:
    return PbftReplica(name, identity(name), MEMBERS, Blob(), OPTIONS)


def sent(of: PbftReplica, to: str, kind: type[Message]) -> list[Message]:
    return [message for receiver, message in of.ready().messages if receiver == to and isinstance(message, kind)]


def holder(sequence: int, data: bytes, name: str = "r0") -> PbftReplica:
    """A replica that has reached a checkpoint."""
    made = replica(name)
    made._executor.adopt(*state(sequence, data))
    made.ready()
    return made


def begin(of: PbftReplica, source: str = "r0", now: float = 0.0) -> None:
    of.step(source, ReplicaStatus(0, 0, True, 128, 128), now)
    assert sent(of, source, FetchState) == [FetchState(0, -1)]


def test_a_state_is_handed_out_to_its_end_though_newer_ones_become_stable() -> None:
    source, fetcher = holder(128, blob()), replica("r3")
    begin(fetcher)
    (manifest,) = _asked(source, FetchState(0, -1))
    fetcher.step("r0", manifest, 0.0)
    asked = sent(fetcher, "r0", FetchState)
    newer = 256
    while asked:
        source._executor.adopt(*state(newer, blob(newer.to_bytes(4, "big"))))  # under load, after each few parts
        newer += 128
        for fetch in asked:
            assert isinstance(fetch, FetchState)
            for part in _asked(source, fetch):
                fetcher.step("r0", part, 0.0)
        asked = sent(fetcher, "r0", FetchState)
    assert (fetcher.executed, fetcher.counters.states_fetched) == (128, 1)


def _asked(source: PbftReplica, fetch: FetchState, now: float = 0.0) -> list[Message]:
    source.step("r3", fetch, now)
    return [message for to, message in source.ready().messages if to == "r3"]


def test_parts_that_are_here_already_are_not_fetched() -> None:
    fetcher, (proof, newer) = holder(128, blob(), "r3"), state(256, blob(b"new"))
    fetcher.step("r0", ReplicaStatus(0, 0, True, 256, 256), 0.0)
    fetcher.ready()
    fetcher.step("r0", StateManifest(proof, newer.parts), 0.0)
    asked = sent(fetcher, "r0", FetchState)
    assert 1 <= len(asked) <= 3  # the header, and where the change is
    for fetch in asked:
        assert isinstance(fetch, FetchState)
        fetcher.step("r0", StatePart(256, fetch.index, newer.part(fetch.index)), 0.0)
    assert fetcher.executed == 256


def test_a_source_that_drips_is_left_and_what_it_gave_is_kept() -> None:
    fetcher, (proof, wanted) = replica("r3"), state(128, blob())
    begin(fetcher)
    fetcher.step("r0", StateManifest(proof, wanted.parts), 0.0)
    fetcher.ready()
    now, given = 0.0, 0
    while fetcher._catchup._transfer is not None:
        fetcher.step("r0", StatePart(128, given, wanted.part(given)), now)
        given += 1
        now += 0.9  # each by itself is in time
        fetcher.tick(now)
    assert given <= 2 + given / PARTS_IN_TIMEOUT + 1
    fetcher.ready()
    begin(fetcher, "r1", now)
    fetcher.step("r1", StateManifest(proof, wanted.parts), now)
    asked = sent(fetcher, "r1", FetchState)
    assert [fetch.index for fetch in asked if isinstance(fetch, FetchState)] == list(range(given, given + PARTS_AHEAD))


def test_a_state_that_no_quorum_signed_is_not_fetched() -> None:
    proof, wanted = state(128, blob())
    signed = dict(list(proof.signatures.items())[:2])
    forged = StableProof(0, 128, proof.digest, signed)
    other = state(128, blob(b"other"))[1]
    for manifest in (StateManifest(forged, wanted.parts), StateManifest(proof, other.parts)):
        fetcher = replica("r3")
        begin(fetcher)
        fetcher.step("r0", manifest, 0.0)
        assert sent(fetcher, "r0", FetchState) == []
        assert fetcher._catchup._transfer is None


def test_a_part_that_is_not_what_was_signed_ends_the_transfer() -> None:
    fetcher, (proof, wanted) = replica("r3"), state(128, blob())
    begin(fetcher)
    fetcher.step("r0", StateManifest(proof, wanted.parts), 0.0)
    fetcher.step("r0", StatePart(128, 1, b"x" * STATE_PART_BYTES), 0.0)
    assert fetcher._catchup._transfer is None


def test_a_new_journal_is_durable_before_anything_is_said() -> None:
    made = replica("r0")
    made._executor.adopt(*state(128, blob()))
    ready = made.ready()
    assert (ready.compacted is not None, ready.sync) == (True, True)


def test_parts_that_were_not_asked_for_change_nothing() -> None:
    fetcher, (proof, wanted) = replica("r3"), state(128, blob())
    begin(fetcher)
    fetcher.step("r0", StateManifest(proof, wanted.parts), 0.0)
    fetcher.ready()
    fetcher.step("r0", StatePart(128, PARTS_AHEAD, wanted.part(PARTS_AHEAD)), 0.0)
    assert fetcher._catchup._transfer is not None
    assert PARTS_AHEAD not in fetcher._catchup._transfer.parts


def test_a_state_is_kept_for_so_many_and_not_for_ever() -> None:
    source = holder(128, blob())
    for number in range(SERVED_MAX + 1):
        source.step(f"x{number}", FetchState(0, -1), 0.0)
    told = {to for to, message in source.ready().messages if isinstance(message, StateManifest)}
    assert len(told) == SERVED_MAX
    source.tick(SERVED_TIMEOUTS * OPTIONS.request_timeout_s + 1.0)
    source.ready()
    source.step("x9", FetchState(0, -1), 20.0)
    assert len(sent(source, "x9", StateManifest)) == 1
