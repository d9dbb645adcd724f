"""One look of the service that relieves the fleet by itself: what it sees, what it does, what it notes.

The rule here: it looks at use alone, does nothing while any plan has not ended (unless that waits for its time), and
hands what it does to the agents as a plan like any other. In `observe` it notes what it would have done, and lets the
same domains rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from msgspec.structs import replace

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.api.plans import PlanRecord, PlanRequest
from dwcp_migrate.api.warm_plan import has_to_wait
from dwcp_migrate.api.watch import StoredWatch, WatchRecord, WatchRound, encode_watch
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.orchestration.plan_progress import moved_since, way
from dwcp_migrate.orchestration.plan_store import PlanStore
from dwcp_migrate.orchestration.workspace import Workspace
from dwcp_migrate.placement.contention import due_hosts, hot_since, levels_by_use, plan_relief
from dwcp_migrate.placement.fleet import CPU_USED, Fleet
from dwcp_migrate.placement.plan import Goal, Plan
from dwcp_migrate.placement.watch_settings import in_window

WATCHED: Final = (CPU_USED,)
"""Resources whose use decides."""


class WatchStore(Protocol):
    """Keeps the record of the service."""

    def read(self) -> StoredWatch:
        """The record as it is.

        Raises:
            DwcpError: it cannot be read now.
        """

    def put(self, record: WatchRecord, revision: int) -> StoredWatch:
        """Keep the record.

        Args:
            record: to keep.
            revision: that the change is of; 0 where none was written before.

        Raises:
            StalePlanError: somebody else changed it meanwhile.
            DwcpError: it cannot be kept now.
        """


@dataclass(frozen=True, slots=True)
class AgentWatch:
    """See `WatchStore`.

    Attributes:
        client: the local agent.
    """

    client: ApiClient

    def read(self) -> StoredWatch:
        """See `WatchStore.read`."""
        return self.client.ask("watch", StoredWatch)

    def put(self, record: WatchRecord, revision: int) -> StoredWatch:
        """See `WatchStore.put`."""
        return self.client.change("watch/put", StoredWatch, encode_watch(record), revision=str(revision))


@dataclass(slots=True)
class FleetLook:
    """One look.

    Attributes:
        ours: the fleet.
        store: of the service's record.
        plans: that are kept.
        own: this host's name.
        clock: seconds since the epoch.
    """

    ours: Workspace
    store: WatchStore
    plans: PlanStore
    own: str
    clock: Callable[[], float] = wall_clock

    def look(self) -> WatchRecord:
        """Look once, and note it.

        Raises:
            StalePlanError: an operator changed the settings meanwhile; the next look goes by them.
            DwcpError: the agent, or the fleet, cannot be asked.
        """
        stored, now = self.store.read(), self.clock()
        record = stored.record
        if record.settings.mode == "off":
            return record
        fleet = self.ours.source.snapshot()
        record = replace(self._with_outcomes(record), looked_at=now, looks=record.looks + 1, words="")
        if CPU_USED not in fleet.balance:
            words = "not all hosts that are up told what they use: nothing is judged"
            return self.store.put(replace(record, since={}, words=words), stored.revision).record
        levels = levels_by_use(fleet, WATCHED)
        since = hot_since(record.since, levels, record.settings, now)
        record = replace(record, since=since)
        if since:
            found = self._round(fleet, record, {host: levels[host] for host in since}, now)
            resting = record.resting | dict.fromkeys((one.partition(":")[0] for one in found.moves), now)
            kept = {one: at for one, at in resting.items() if now - at < record.settings.cool_down_s}
            record = replace(record, rounds=[*record.rounds, found], resting=kept)
        return self.store.put(record, stored.revision).record

    def _with_outcomes(self, record: WatchRecord) -> WatchRecord:
        """The record in which rounds say what came of their plans."""
        if all(one.outcome or not one.plan for one in record.rounds):
            return record
        ended = {one.record.id: one.record for one in self.plans.all() if not one.record.is_open}
        words = {
            number: f"{plan.state}: {len(plan.moved)} moved, {len(plan.left)} left" for number, plan in ended.items()
        }
        rounds = [
            replace(one, outcome=words[one.plan]) if not one.outcome and one.plan in words else one
            for one in record.rounds
        ]
        return replace(record, rounds=rounds)

    def _round(self, fleet: Fleet, record: WatchRecord, hot: dict[str, float], now: float) -> WatchRound:
        settings = record.settings
        due = due_hosts(record.since, settings, now)
        found = WatchRound(at=now, by=self.own, hot=hot, due=due)
        if not due:
            return replace(found, words=f"not for {settings.hold_s:.0f} s yet")
        kept = [one.record for one in self.plans.all()]
        if unended := [one.id for one in kept if one.is_open and not has_to_wait(one, now)]:
            return replace(found, words=f"plan {unended[0]} has not ended")
        resting = moved_since(kept, now - settings.cool_down_s) | {
            one for one, at in record.resting.items() if now - at < settings.cool_down_s
        }
        request = PlanRequest(
            goal=Goal(purpose="rebalance"),
            at_once=settings.at_once,
            reached=sorted(self.ours.known),
            relieve=due,
            watch=settings,
            resting=sorted(one.name for one in fleet.domains if one.name in resting and one.host in due),
        )
        plan = relieving(self.ours, fleet, request)
        if not plan.steps:
            return replace(
                found, words="no move is worth it: none would lower the host enough and keep the others cool"
            )
        at = datetime.fromtimestamp(now, UTC)
        if not in_window(settings.windows, at.weekday(), at.hour * 60 + at.minute):
            return replace(found, words="outside of the windows")
        moves = [way(step) for step in plan.steps]
        if settings.mode == "observe":
            return replace(found, moves=moves, words="observed, not done")
        stored = self.plans.put(PlanRecord(request=request, by=self.own, asked_at=now), 0)
        return replace(found, moves=moves, plan=stored.record.id)


def relieving(ours: Workspace, fleet: Fleet, request: PlanRequest) -> Plan:
    """Plan what a round of the service asks for.

    Args:
        ours: policy and forecasts.
        fleet: with what its domains use.
        request: of the round.
    """
    assert request.watch is not None
    return plan_relief(
        fleet, request.relieve, request.resting, request.watch, WATCHED, policy=ours.policy(), cost=ours.cost
    )
