"""Choice of the engine that authorises a migration, by the hosts' trust domains, the policy, and the engines' health.

Rule: trust is never traded for availability. Inside one trust domain hosts may crash but do not lie: Raft decides, and
PBFT if Raft has no quorum. Across trust domains, or where the policy says so, only PBFT's certificate counts; Raft does
not replace it. With neither engine, a fleet that does not require coordination lets the two hosts agree by themselves,
and records that; a fleet that requires it refuses. Each choice has its reason; each change is recorded.

A failed engine is tried again by one decision after a pause that doubles; once it works it is used at once.
"""

from enum import StrEnum
from typing import Final, Literal, NamedTuple

PAUSE_S: Final = 5.0
"""First pause before a failed engine is tried again, in seconds: a Raft election takes less."""
PAUSE_DOUBLINGS_MAX: Final = 4
EVENTS_MAX: Final = 256


class EngineName(StrEnum):
    """The two engines that can authorise a migration."""

    RAFT = "raft"
    PBFT = "pbft"
    POINT_TO_POINT = "point-to-point"
    REFUSED = "refused"


class EnginePolicy(NamedTuple):
    """The operator's choice of an engine.

    Attributes:
        mode: `auto` looks at the trust domains; `pbft` demands it for every decision; `off` coordinates nothing.
        require: refuse what no quorum can decide, rather than migrate point to point.
    """

    mode: Literal["auto", "pbft", "off"] = "auto"
    require: bool = False


class EngineChoice(NamedTuple):
    """The engine for one migration, and the reason for it.

    Attributes:
        fallback: not what it would be if everything worked.
    """

    engine: EngineName
    reason: str
    fallback: bool = False


def choose(
    source_trust: str, destination_trust: str, policy: EnginePolicy, usable: frozenset[EngineName]
) -> EngineChoice:
    """Choose the engine for a decision that concerns two hosts.

    Args:
        source_trust: trust domain of the source host.
        destination_trust: of the destination host.
        policy: the operator's.
        usable: engines that are configured and answer.
    """
    if policy.mode == "off":
        return EngineChoice(EngineName.POINT_TO_POINT, "coordination is off")
    crosses = source_trust != destination_trust
    if policy.mode == "pbft" or crosses:
        why = (
            f"the trust domains of source ({source_trust or 'none'}) and destination ({destination_trust or 'none'})"
            " differ"
            if crosses
            else "the policy demands it"
        )
        if EngineName.PBFT in usable:
            return EngineChoice(EngineName.PBFT, why)
        return _without(f"no PBFT quorum, and {why}", policy)
    if EngineName.RAFT in usable:
        return EngineChoice(EngineName.RAFT, f"both hosts are in trust domain {source_trust}")
    if EngineName.PBFT in usable:
        return EngineChoice(EngineName.PBFT, "no Raft quorum", fallback=True)
    return _without("no Raft quorum and no PBFT quorum", policy)


def _without(why: str, policy: EnginePolicy) -> EngineChoice:
    if policy.require:
        return EngineChoice(EngineName.REFUSED, f"{why}; coordination is required", fallback=True)
    return EngineChoice(EngineName.POINT_TO_POINT, f"{why}; both ends agree alone", fallback=True)


class EngineSwitch(NamedTuple):
    """An engine failed or came back."""

    at_s: float
    engine: EngineName
    usable: bool
    reason: str


class EngineHealth:
    """Health of the engines, as the decisions themselves show it.

    Args:
        configured: engines that exist here.
    """

    def __init__(self, configured: frozenset[EngineName]) -> None:
        self._configured = configured
        self._failures: dict[EngineName, int] = {}
        self._again_at: dict[EngineName, float] = {}
        self.events: list[EngineSwitch] = []

    def usable(self, now: float) -> frozenset[EngineName]:
        """List engines to try now: those that work, and failed ones whose pause is over."""
        return frozenset(engine for engine in self._configured if self._again_at.get(engine, now) <= now)

    def failed(self, engine: EngineName, reason: str, now: float) -> None:
        """Note that an engine did not decide; it is not asked during a pause, which doubles with each failure.

        Args:
            engine: that was asked.
            reason: for operators.
            now: seconds, on a clock that never jumps.
        """
        failures = self._failures.get(engine, 0)
        self._failures[engine] = failures + 1
        self._again_at[engine] = now + PAUSE_S * 2 ** min(failures, PAUSE_DOUBLINGS_MAX)
        if failures == 0:
            self._record(EngineSwitch(now, engine, usable=False, reason=reason))

    def worked(self, engine: EngineName, now: float) -> None:
        """Note that an engine decided.

        Args:
            engine: that was asked.
            now: seconds, as for `failed`.
        """
        if self._failures.pop(engine, 0):
            self._again_at.pop(engine, None)
            self._record(EngineSwitch(now, engine, usable=True, reason="it decided again"))

    def _record(self, event: EngineSwitch) -> None:
        self.events.append(event)
        del self.events[:-EVENTS_MAX]
