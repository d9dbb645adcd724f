"""Who is asked who the members are, and what is believed of the answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from dwcp_migrate.agent.pbft import membership_sync as module
from dwcp_migrate.agent.pbft.membership_store import MembershipStore
from dwcp_migrate.agent.pbft.membership_sync import MembershipSync
from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.consensus.pbft.membership_chain import LINK_BYTES_MAX
from dwcp_migrate.consensus.pbft.model.messages import EpochLink, encode_body
from dwcp_migrate.errors import PeerUnreachableError
from dwcp_migrate.protocol.control import Follow, Successor
from tests.agent.pbft.test_membership_store import FIRST, SECOND, THIRD, configured
from tests.consensus.epoch_links import link

if TYPE_CHECKING:
    from dwcp_migrate.agent.peers.client import ControlClient

ONE, TWO = link(FIRST, SECOND, 10), link(SECOND, THIRD, 20)
FORGED = link(FIRST, SECOND, 10, signers=["r0", "r1"])
WAIT_S = 20.0

Answer = Callable[[Follow], Successor]


class Peers:
    """In the place of `ControlClient`: peers that answer as a test says; those who are not named are away."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def ask(self, peer: PeerConfig, address: str, request: Follow, answer: type[Successor]) -> Successor:
        del address, answer
        self.asked.append(peer.name)
        await asyncio.sleep(0)
        if peer.name not in self.answers:
            raise PeerUnreachableError(f"{peer.name} is away")
        return self.answers[peer.name](request)


def honest(*links: EpochLink, part_bytes: int = 100) -> Answer:
    def answer(request: Follow) -> Successor:
        data = next((encode_body(one) for one in links if one.proof.epoch == request.epoch), b"")
        return Successor(newest=9, size=len(data), data=data[request.offset : request.offset + part_bytes])

    return answer


class Host:
    """A follower with what it believes."""

    def __init__(self, directory: Path, *names: str, **answers: Answer) -> None:
        self.peers = Peers(**answers)
        known = PeerDirectory(
            [PeerConfig(name, [f"10.0.0.{at}"]) for at, name in enumerate(names, 1)], "here", lambda _: False
        )
        self.believed = MembershipStore(configured(FIRST), directory)
        self.rounds = asyncio.Event()
        self.follower = MembershipSync(cast("ControlClient", self.peers), lambda: known, self.believed, self.rounds.set)

    async def follow(self, name: str) -> bool:
        return await self.follower.follow(PeerConfig(name, ["10.0.0.1"]))

    async def round(self) -> None:
        self.rounds.clear()
        await asyncio.wait_for(self.rounds.wait(), WAIT_S)


async def test_all_links_are_fetched_part_by_part_from_one_peer(tmp_path: Path) -> None:
    host = Host(tmp_path, r0=honest(ONE, TWO))
    assert await host.follow("r0")
    assert host.believed.newest.membership == THIRD
    assert len(host.peers.asked) > 10


@pytest.mark.parametrize(
    "lie",
    [
        honest(FORGED),
        honest(TWO),
        lambda _: Successor(newest=9, size=10, data=b"?" * 10),
        lambda _: Successor(newest=9, size=LINK_BYTES_MAX + 1, data=b"?"),
        lambda request: Successor(newest=9, size=10, data=b"?" * 100) if not request.offset else Successor(newest=9),
        lambda request: (
            Successor(newest=9, size=9999, data=encode_body(ONE)) if not request.offset else Successor(newest=9)
        ),
    ],
    ids=["forged", "another epoch's", "no link", "past the limit", "more than announced", "less than announced"],
)
async def test_a_liar_changes_nothing_and_the_next_one_is_believed(tmp_path: Path, lie: Answer) -> None:
    host = Host(tmp_path, r0=lie, r1=honest(ONE))
    await host.follow("r0")
    assert host.believed.newest.membership == FIRST
    await host.follow("r1")
    assert host.believed.newest.membership == SECOND


async def test_a_link_in_crumbs_is_refused_after_so_many_parts(tmp_path: Path) -> None:
    host = Host(tmp_path, r0=lambda _: Successor(newest=9, size=LINK_BYTES_MAX, data=b"x"))
    assert not await host.follow("r0")
    assert len(host.peers.asked) == module.PARTS_MAX


async def test_a_newer_membership_is_told_at_once_though_another_member_keeps_the_round_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PEER_S_MAX", 2 * WAIT_S)
    host = Host(tmp_path, "r0", "r1", r1=honest(ONE))
    asked = host.peers.ask

    async def ask(peer: PeerConfig, address: str, request: Follow, answer: type[Successor]) -> Successor:
        if peer.name == "r0":
            await asyncio.Event().wait()
        return await asked(peer, address, request, answer)

    monkeypatch.setattr(host.peers, "ask", ask)
    host.follower.wake()
    host.follower.start()
    await asyncio.wait_for(host.rounds.wait(), WAIT_S)
    assert host.believed.newest.membership == SECOND
    await host.follower.close()


async def test_an_epoch_counts_as_heard_where_more_peers_say_it_than_may_lie(tmp_path: Path) -> None:
    def says(newest: int) -> Answer:
        return lambda _: Successor(newest=newest)

    host = Host(tmp_path, "r0", "r1", "r2", r0=says(9), r1=says(3), r2=says(2))
    assert host.follower.epoch_heard(1) == 0
    for name in ("r0", "r1", "r2"):
        await host.follow(name)
    assert [host.follower.epoch_heard(liars) for liars in (0, 1, 2, 3)] == [9, 3, 2, 0]


async def test_two_answers_at_once_are_taken_once(tmp_path: Path) -> None:
    host = Host(tmp_path, r0=honest(ONE), r1=honest(ONE))
    assert all(await asyncio.gather(host.follow("r0"), host.follow("r1")))
    assert host.believed.newest.membership == SECOND


async def test_members_are_asked_in_turn_and_others_where_they_are_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EAGER_S", 0.001)
    monkeypatch.setattr(module, "FOLLOW_S", 0.002)
    host = Host(tmp_path, "r0", "r1", "c0", c0=honest(ONE))
    host.follower.start()
    for _ in range(4):
        await host.round()
    await host.follower.close()
    assert {"r0", "r1", "c0"} <= set(host.peers.asked)
    assert host.believed.newest.membership == SECOND


async def test_with_a_reason_all_members_are_asked_at_once_but_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EAGER_S", 0.2)
    nothing = honest()
    host = Host(tmp_path, "r0", "r1", "r2", r0=nothing, r1=nothing, r2=nothing)
    host.follower.start()
    await host.round()
    assert len(host.peers.asked) == 1
    host.follower.wake()
    began = asyncio.get_running_loop().time()
    await host.round()
    assert asyncio.get_running_loop().time() - began >= 0.1
    assert sorted(host.peers.asked[1:]) == ["r0", "r1", "r2"]
    await host.follower.close()
