"""An engine without log, disk or network: the model itself, shared by as many hosts as there are engines on it.

The rule: it keeps the contract of `engine.Engine` (the same tests hold it), so that whoever asks an engine can be
tested without one; and a quorum is there, or not, as it is told.
"""

from collections.abc import Callable
from itertools import count
from socket import socket
from typing import Literal, TypeVar

from dwcp_migrate.errors import CoordinationError, NoQuorumError
from dwcp_migrate.state.engine_status import EngineMember, EngineStatus
from dwcp_migrate.state.fleet import commands, readers
from dwcp_migrate.state.fleet.model import FleetState, TicketOutcome
from dwcp_migrate.state.fleet.replicated import FleetMachine

T = TypeVar("T")

_requests = count()
"""Of all engines: a state knows a request that it has seen by its name."""


class FakeEngine:
    """See `engine.Engine`.

    Args:
        name: of this host.
        machine: the state, shared by the hosts of one fleet.
        clock: seconds since the epoch, for commands.

    Attributes:
        has_quorum: set it to False, and nothing is confirmed.
    """

    def __init__(self, name: str, machine: FleetMachine, clock: Callable[[], float]) -> None:
        self._name = name
        self._machine = machine
        self._clock = clock
        self._members = {name}
        self._latency_ms = -1.0
        self._confirmed = 0
        self.has_quorum = True

    async def start(self) -> None:
        """See `engine.Engine`."""

    async def close(self) -> None:
        """See `engine.Engine`."""

    def adopt(self, sock: socket) -> None:
        """See `engine.Engine`."""
        sock.close()

    async def submit(self, body: commands.Body, timeout_s: float) -> TicketOutcome:
        """See `engine.Engine`."""
        readers.check_readers(self._machine.fleet, body)
        request = f"{self._name}-{next(_requests)}"
        command = commands.Command(request=request, by=self._name, at=self._clock(), body=body)
        data = commands.encode(command)
        await self.barrier(timeout_s)
        self._confirmed += 1
        self._latency_ms = 0.1
        (outcome,) = self._machine.apply([data])
        return outcome

    async def beat(self, body: commands.PutHost, timeout_s: float) -> TicketOutcome:
        """See `engine.Engine`."""
        return await self.submit(body, timeout_s)

    async def barrier(self, timeout_s: float) -> None:
        """See `engine.Engine`."""
        if not self.has_quorum:
            raise NoQuorumError(f"no majority confirmed it within {timeout_s:g} s")

    async def look(self, at: Callable[[FleetState], T]) -> T:
        """See `engine.Engine`."""
        return at(self._machine.fleet)

    async def status(self) -> EngineStatus:
        """See `engine.Engine`."""
        return EngineStatus(
            engine="fake",
            state="leader",
            leader=self._name,
            members=[EngineMember(name=name, role=self._role(name), connected=True) for name in sorted(self._members)],
            requests=self._confirmed,
            commit_ms_p50=self._latency_ms,
            commit_ms_p99=self._latency_ms,
        )

    def _role(self, name: str) -> Literal["leader", "voter"]:
        return "leader" if name == self._name else "voter"

    async def add_member(self, name: str, timeout_s: float) -> None:
        """See `engine.Engine`."""
        await self.barrier(timeout_s)
        self._members.add(name)

    async def remove_member(self, name: str, timeout_s: float) -> None:
        """See `engine.Engine`."""
        await self.barrier(timeout_s)
        if name == self._name:
            raise CoordinationError("a leader is not removed")
        self._members.discard(name)

    async def transfer_leader(self, name: str, timeout_s: float) -> str:
        """See `engine.Engine`."""
        await self.barrier(timeout_s)
        if name not in self._members - {self._name}:
            raise CoordinationError("no voter is up to date and connected")
        return name
