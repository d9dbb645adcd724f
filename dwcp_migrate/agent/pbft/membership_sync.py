"""Synchronisation of the PBFT group's membership: peers are asked for signed links to newer epochs.

The rule: any peer may be asked, because the answer's signatures prove it (`lineage`). One member is asked in turn every
`FOLLOW_S`; all are asked at once when a reply or a certificate is of a later epoch. An answer that cannot be verified
is logged and ignored, and the next peer is asked.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from dwcp_migrate.agent.pbft.membership_store import MembershipStore
from dwcp_migrate.agent.peers.client import ControlClient
from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.consensus.pbft.membership_chain import LINK_BYTES_MAX, decode_link
from dwcp_migrate.consensus.pbft.model.epoch_links import LINKS_MAX
from dwcp_migrate.errors import DwcpError, EpochError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import Follow, Successor
from dwcp_migrate.tasks import Tasks

FOLLOW_S: Final = 5.0
"""A host that hears nothing else is that far behind; 100 hosts ask all members together 20 times a second."""

EAGER_S: Final = 0.5
"""Shortest interval of rounds that a peer's report causes, so that false reports cost few questions."""

PEER_S_MAX: Final = 3.0
"""Longest time for all answers of one peer; the slowest peer limits a round."""

PARTS_MAX: Final = 64
"""Answers that a link may come in; this release sends three at most."""

CLOSE_S_MAX: Final = 1.0
"""A round among peers that answer takes milliseconds."""

log = get_logger(component="group")


class MembershipSync:
    """Asks the group's members for links to newer epochs.

    Args:
        control: how peers are asked.
        directory: says who the peers are now.
        memberships: what is believed.
        changed: told of each newer membership, and after a round, whether anything is new or not.
    """

    def __init__(
        self,
        control: ControlClient,
        directory: Callable[[], PeerDirectory],
        memberships: MembershipStore,
        changed: Callable[[], None],
    ) -> None:
        self._control = control
        self._directory = directory
        self._memberships = memberships
        self._changed = changed
        self._woken = asyncio.Event()
        self._asking = asyncio.Lock()
        self._turn = 0
        self._said: dict[str, int] = {}
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin to ask now and then."""
        self._tasks.keep_running("membership", self._run)

    async def close(self) -> None:
        """Ask no more; what is being asked is given `CLOSE_S_MAX` to end in order."""
        if self._tasks.count:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S_MAX):
                    await self._asking.acquire()
            await self._tasks.cancel()

    def epoch_heard(self, liars: int) -> int:
        """Return the newest epoch that more peers than may lie say they follow."""
        said = sorted((self._said.get(peer.name, 0) for peer in self._directory().all()), reverse=True)
        return said[liars] if liars < len(said) else 0

    def wake(self) -> None:
        """There is reason to believe that the members changed."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            is_eager = self._woken.is_set()
            self._woken.clear()
            async with self._asking:
                await self._round(all_members=is_eager)
            self._memberships.write()
            self._changed()
            await asyncio.sleep(EAGER_S)
            with contextlib.suppress(TimeoutError):  # its turn came without a reason
                async with asyncio.timeout(FOLLOW_S - EAGER_S):
                    await self._woken.wait()

    async def _round(self, *, all_members: bool) -> None:
        """Ask the member whose turn it is, or all; where none can be asked, any peer whose turn it is."""
        directory = self._directory()
        members = [peer for name in self._memberships.newest.names if (peer := directory.by_name(name))]
        asked = members or list(directory.all())
        if not asked:
            return
        self._turn += 1
        if not all_members:
            asked = [asked[self._turn % len(asked)]]
        answers = await asyncio.gather(*(self.follow(peer) for peer in asked))
        others = [peer for peer in directory.all() if peer not in asked]
        if others and not any(answers):
            await self.follow(others[self._turn % len(others)])

    async def follow(self, peer: PeerConfig) -> bool:
        """Learn from a peer who followed the members that are known, in `PEER_S_MAX`; returns whether it answered."""
        try:
            async with asyncio.timeout(PEER_S_MAX):
                return await self._follow(peer)
        except TimeoutError:
            log.warning("following given up", peer=peer.name, why=f"not done in {PEER_S_MAX:g} s")
            return False

    async def _follow(self, peer: PeerConfig) -> bool:
        try:
            for _ in range(LINKS_MAX):
                epoch = self._memberships.newest.epoch
                link = await self._link(peer, epoch)
                if not link:
                    return True
                if self._memberships.newest.epoch == epoch:  # another answer may have been quicker
                    self._memberships.follow(decode_link(link))
                    self._changed()  # at once: a round lasts until its slowest peer has answered
        except EpochError as error:
            log.warning("link refused", peer=peer.name, why=str(error))
        except DwcpError as error:
            log.debug("not followed", peer=peer.name, error=str(error))
        else:
            return True
        return False

    async def _link(self, peer: PeerConfig, epoch: int) -> bytes:
        """Fetch the link from an epoch on, part by part; empty if the peer has none.

        Raises:
            EpochError: it comes in crumbs.
            DwcpError: as `ControlClient.ask`.
        """
        data = b""
        for _ in range(PARTS_MAX):
            answer = await self.ask(peer, epoch, len(data))
            self._said[peer.name] = answer.newest
            if not answer.data or answer.size > LINK_BYTES_MAX:
                return b""
            data += answer.data
            if len(data) >= answer.size:
                return data
        raise EpochError(f"link from epoch {epoch}: it comes in more than {PARTS_MAX} parts")

    async def ask(self, peer: PeerConfig, epoch: int, offset: int = 0) -> Successor:
        """Ask a peer for the members after those of an epoch.

        Args:
            peer: that is asked.
            epoch: newest one that is known here.
            offset: of the bytes that are asked for in a long answer.

        Raises:
            DwcpError: as `ControlClient.ask`.
        """
        request = Follow(cluster=self._memberships.newest.cluster, epoch=epoch, offset=offset)
        return await self._control.ask(peer, peer.addresses[0], request, Successor)
