"""Plans that are kept, by way of the local agent: in the fleet's record, or where there is none in the agent's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.api.plans import PlanList, PlanRecord, StoredPlan, encode_record
from dwcp_migrate.errors import NotFoundError, PlacementError, StalePlanError

TRIES: Final = 8
"""Of a change that others came before."""


class PlanStore(Protocol):
    """Plans by their numbers."""

    def all(self) -> list[StoredPlan]:
        """All that are kept, the newest last.

        Raises:
            DwcpError: they cannot be read now.
        """

    def put(self, record: PlanRecord, revision: int) -> StoredPlan:
        """Keep a record.

        Args:
            record: to keep; one of `id` 0 is new and gets its number.
            revision: that the change is of; 0 for a new one.

        Raises:
            StalePlanError: somebody else changed it meanwhile.
            DwcpError: it cannot be kept now.
        """


@dataclass(frozen=True, slots=True)
class AgentPlans:
    """See `PlanStore`.

    Attributes:
        client: the local agent.
    """

    client: ApiClient

    def all(self) -> list[StoredPlan]:
        """See `PlanStore.all`."""
        return self.client.ask("plans", PlanList).plans

    def put(self, record: PlanRecord, revision: int) -> StoredPlan:
        """See `PlanStore.put`."""
        return self.client.change(
            "plans/put", StoredPlan, encode_record(record), id=str(record.id), revision=str(revision)
        )


def find_plan(store: PlanStore, number: int) -> StoredPlan:
    """Find a plan by its number.

    Args:
        store: that keeps it.
        number: of the plan, from 1.

    Raises:
        NotFoundError: there is none.
    """
    for one in store.all():
        if one.record.id == number:
            return one
    raise NotFoundError(f"no plan {number}", hint="`dwcp-migrate plans` lists them")


def change_plan(store: PlanStore, number: int, change: Callable[[PlanRecord], PlanRecord]) -> StoredPlan:
    """Change a plan's record, also where others change it at the same time.

    Args:
        store: of it.
        number: of it.
        change: what it is to be; called again where somebody else came before.

    Raises:
        NotFoundError: there is none.
        PlacementError: others changed it again and again.
    """
    for _ in range(TRIES):
        known = find_plan(store, number)
        wanted = change(known.record)
        if wanted == known.record:
            return known
        try:
            return store.put(wanted, known.revision)
        except StalePlanError:
            continue
    raise PlacementError(f"plan {number} is changed by others all the time", hint="try again")
