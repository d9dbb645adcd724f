"""Interface of the engine that holds the cluster state; Raft and etcd implement it.

The rule: the agent knows this Protocol and no engine. A change is confirmed when it is committed and applied here. A
look is local and may be late; after a `barrier` it includes everything that was confirmed to anybody.

    Engine      raft.engine.RaftEngine      etcd.engine.EtcdEngine    fake.FakeEngine (tests)
"""

from collections.abc import Callable
from socket import socket
from typing import Final, Protocol, TypeVar

from dwcp_migrate.state.engine_status import EngineStatus
from dwcp_migrate.state.fleet.commands import Body, PutHost
from dwcp_migrate.state.fleet.model import REQUEST_WINDOW, FleetState, TicketOutcome

T = TypeVar("T")

SUBMITS_MAX: Final = REQUEST_WINDOW // 2
"""Requests of this host open at once."""


class Engine(Protocol):
    """Holds the fleet's state."""

    async def start(self) -> None:
        """Begin; does not wait for a quorum.

        Raises:
            CoordinationError: what is on the disk, or the configuration, cannot be used.
        """

    async def close(self) -> None:
        """End; what is open fails."""

    async def submit(self, body: Body, timeout_s: float) -> TicketOutcome:
        """Have a command committed and applied here.

        Args:
            body: of the command.
            timeout_s: seconds to wait for the confirmation.

        Returns:
            The outcome; a refusal is one too, and raises nothing.

        Raises:
            NoQuorumError: not confirmed in time; it may still happen.
            LimitExceededError: it is too large.
            CoordinationError: the software of some host does not read it.
        """

    async def beat(self, body: PutHost, timeout_s: float) -> TicketOutcome:
        """Report that this host lives, and its facts, in the way that costs this engine least; raises as `submit`.

        Args:
            body: of the command that says so.
            timeout_s: seconds to wait.
        """

    async def barrier(self, timeout_s: float) -> None:
        """Wait until everything that was confirmed to anybody is applied here.

        Raises:
            NoQuorumError: not in time.
        """

    async def look(self, at: Callable[[FleetState], T]) -> T:
        """Read the state as it is here; `at` must not keep or change what it is given.

        Raises:
            NoQuorumError: the engine is stopped.
        """

    async def status(self) -> EngineStatus:
        """Report the state of this engine."""

    async def add_member(self, name: str, timeout_s: float) -> None:
        """Give a host a vote.

        Args:
            name: of the host.
            timeout_s: seconds to wait for the confirmation.

        Raises:
            NoQuorumError: not confirmed in time.
            CoordinationError: not possible now, or not with this engine.
        """

    async def remove_member(self, name: str, timeout_s: float) -> None:
        """Take a host's vote; raises as `add_member`.

        Args:
            name: of the host.
            timeout_s: seconds to wait for the confirmation.
        """

    async def transfer_leader(self, name: str, timeout_s: float) -> str:
        """Have another voter lead; raises as `add_member`.

        Args:
            name: of the voter; empty for the one that is furthest along.
            timeout_s: seconds to wait until it leads.

        Returns:
            The name of the new leader.
        """

    def adopt(self, sock: socket) -> None:
        """Take a connection that another host's engine opened."""


class RequestNumbers:
    """Numbers this host's requests so that a repeated one always finds its outcome.

    The state remembers the last `REQUEST_WINDOW` outcomes of each host, so a request is only begun while it is less
    than that ahead of the oldest one that is open still.

    Args:
        run: names this run of the process; requests of different runs never share an id.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._next = 0
        self._open: dict[int, None] = {}

    @property
    def may_begin(self) -> bool:
        """Tell whether another may be begun now."""
        oldest = next(iter(self._open), self._next)
        return len(self._open) < SUBMITS_MAX and self._next - oldest < SUBMITS_MAX

    def begin(self) -> tuple[int, str]:
        """Begin one; returns its number, for `end`, and its id."""
        assert self.may_begin, "ask may_begin first"
        number = self._next
        self._next += 1
        self._open[number] = None
        return number, f"{self._run}-{number}"

    def end(self, number: int) -> None:
        """Close a request that is answered, or given up for good."""
        del self._open[number]
