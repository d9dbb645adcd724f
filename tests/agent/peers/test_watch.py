"""Whether peers answer, asked again and again."""

import asyncio

from dwcp_migrate.agent.peers.watch import ASKED_AT_ONCE_MAX, PeerWatch
from dwcp_migrate.errors import PeerUnreachableError


async def test_each_peer_is_said_to_be_up_or_down_and_one_that_left_is_forgotten() -> None:
    names = ["hv2", "hv3"]

    async def ask(name: str) -> bool:
        if name == "hv3":
            raise PeerUnreachableError("no answer")
        return True

    watch = PeerWatch(lambda: names, ask)
    assert watch.up == {}
    await watch.round()
    assert watch.up == {"hv2": True, "hv3": False}
    names.remove("hv3")
    assert watch.up == {"hv2": True}


async def test_no_more_than_the_limit_are_asked_at_once() -> None:
    asked, most = 0, 0

    async def ask(_: str) -> bool:
        nonlocal asked, most
        asked += 1
        most = max(most, asked)
        await asyncio.sleep(0)
        asked -= 1
        return True

    await PeerWatch(lambda: [f"hv{number}" for number in range(10 * ASKED_AT_ONCE_MAX)], ask).round()
    assert most == ASKED_AT_ONCE_MAX
