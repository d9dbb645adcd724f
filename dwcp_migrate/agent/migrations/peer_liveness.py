"""Failure detector for the peer of a migration all of whose channels are gone.

The rule: a migration waits for a link that was cut, and not for a peer that is gone; the peer's agent tells which. If
the peer's host answers but its agent does not run, only an agent before 0.2.0 counts as gone: its data processes died
with it.

    no channel ── ask the peer's agent ── it carries the session, or nothing comes back: wait on (`link.loss_s_max`)
                                      ├── it knows no such session: gone
                                      └── its host refuses connections: wait on, or (before 0.2.0) after
                                          REFUSED_S_MAX: gone
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import VERSIONS, Ping, Pong

LOOK_S: Final = 1.0
"""Between two looks; a lost link is back within that time if it was one channel's bad luck."""

REFUSED_S_MAX: Final = 10.0
"""Time after which a refusing host counts as gone: a service manager restarts an agent sooner, and that one answers."""

log = get_logger(component="peer-liveness")


@dataclass(frozen=True, slots=True)
class PeerLivenessMonitor:
    """One side's watch over the other one.

    Attributes:
        runtime: the shared parts.
        peer: whose agent is asked.
        address: at which it is asked first; empty for any.
        session_id: of the migration.
        outlives: whether its data process outlives its agent.
        gone: called once, with the reason, when the other side cannot come back.
    """

    runtime: Runtime
    peer: PeerConfig
    address: str
    session_id: bytes
    outlives: bool
    gone: Callable[[str], None]

    async def run(self) -> None:
        """Look until the other side is gone or the record has ended; to be cancelled when the data process ends."""
        lost = False
        refused_since: float | None = None
        while True:
            await asyncio.sleep(LOOK_S)
            record = self.runtime.ledger.get(self.session_id.hex())
            if record is None:
                return
            lost, was_lost = record.counters.channels == 0, lost
            if not (lost and was_lost):
                refused_since = None
                continue
            answer = await self._ask()
            now = steady_clock()
            refused_since = (refused_since or now) if answer is None else None
            silent_s = now - refused_since if refused_since is not None else 0.0
            if answer is False or (silent_s >= REFUSED_S_MAX and not self.outlives):
                self._end("knows nothing of this migration" if answer is False else "is not running")
                return

    async def _ask(self) -> bool | None:
        """True: it is there or may be; False: it is not; None: its host refuses connections at every address."""
        request = Ping(versions=VERSIONS, session_id=self.session_id)
        try:
            address = await find_address(self.runtime.control, self.peer, candidate_addresses(self.peer, self.address))
            pong = await self.runtime.control.ask(self.peer, address, request, Pong)
        except DwcpError as error:
            return None if isinstance(error.__cause__, ConnectionRefusedError) else True
        return pong.carries is not False

    def _end(self, what: str) -> None:
        log.warning("peer is gone", migration=self.session_id.hex(), peer=self.peer.name, what=what)
        self.gone(f"the agent of {self.peer.name} {what}: it was restarted, or it crashed")
