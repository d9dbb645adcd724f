"""Status of the engine that holds the cluster state, and of the hosts that keep it.

A module of its own, because every command reads it in the agent's answers, and few need the engine's commands.
"""

from typing import Literal

import msgspec


class EngineMember(msgspec.Struct, frozen=True, kw_only=True):
    """A host that keeps the state.

    Attributes:
        connected: to this host.
        behind: entries that it has not confirmed to the leader; -1 where that is not known (only the leader knows).
    """

    name: str
    role: Literal["leader", "voter", "observer"]
    connected: bool
    behind: int = -1


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Status of an engine.

    Attributes:
        state: of this host in it; `stopped` with the reason in `error`.
        commit_ms_p50: of this host's last requests, from asking to applied here; -1 before the first.
        requests: of this host since the start: those confirmed, and those that no majority confirmed in time.
        time_ahead_s: of the fleet's time before this host's clock; 0 where it is not ahead.
    """

    engine: str
    state: Literal["leader", "follower", "candidate", "observer", "client", "stopped"]
    leader: str = ""
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    log_bytes: int = 0
    members: list[EngineMember] = []
    elections: int = 0
    requests: int = 0
    requests_failed: int = 0
    commit_ms_p50: float = -1.0
    commit_ms_p99: float = -1.0
    time_ahead_s: float = 0.0
    error: str = ""
