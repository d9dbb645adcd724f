"""Plans as they are kept: documents of the fleet's state where there is one, else a file of this host.

The rule: a record is written at the revision that its writer read, or not at all. The last `ENDED_KEPT` that ended are
kept for people.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.plans.document import lease_holder, put_document, stale_record, write_own
from dwcp_migrate.api.plans import PlanRecord, StoredPlan, decode_record, encode_record
from dwcp_migrate.errors import PlacementError, StalePlanError
from dwcp_migrate.state.fleet.commands import DropDocument, PutDocument
from dwcp_migrate.state.fleet.model import FleetState

PREFIX: Final = "plan "
PLANS_NAME: Final = "plans.json"
ENDED_KEPT: Final = 24
OPEN_MAX: Final = 8
"""Plans that wait or run at once; each is carried out after the one before it."""

NUMBER_TRIES: Final = 8
LEASE: Final = "placement"
"""Lease that the carrier of a plan holds, see `orchestration.shared_state`."""


class PlanBook:
    """The plans that are kept.

    Args:
        coordination: the fleet's state.
        is_shared: whether there is one.
        directory: of this host's file where there is none.
        name: of this host.
    """

    def __init__(
        self, coordination: ClusterStateClient, is_shared: Callable[[], bool], directory: Path, name: str
    ) -> None:
        self._coordination, self._is_shared = coordination, is_shared
        self._path = directory / PLANS_NAME
        self.name = name
        self._own: list[StoredPlan] | None = None
        self.changed = asyncio.Event()

    @property
    def is_shared(self) -> bool:
        """Whether the fleet keeps them."""
        return self._is_shared()

    async def all(self, *, fresh: bool = True) -> list[StoredPlan]:
        """All that are kept, by their numbers.

        Args:
            fresh: wait for all that was confirmed to anybody.

        Raises:
            CoordinationError: the fleet cannot be asked.
        """
        if self.is_shared:
            return await self._coordination.look(_plans_of, fresh=fresh)
        return list(self._file())

    async def put(self, record: PlanRecord, revision: int) -> StoredPlan:
        """Keep a record; see `orchestration.plan_store.PlanStore.put`.

        Args:
            record: to keep; `id` is 0 for a new one.
            revision: that the change is of; 0 for a new one.

        Raises:
            StalePlanError: somebody else changed it meanwhile.
            PlacementError: as many plans are open as may be, or the file cannot be written.
            CoordinationError: the fleet cannot be asked, or says no.
        """
        if record.id == 0:
            stored = await self._begin(record)
        elif self.is_shared:
            stored = await self._put_document(record, revision)
        else:
            stored = self._put_own(record, revision)
        self.changed.set()
        return stored

    async def _begin(self, record: PlanRecord) -> StoredPlan:
        for _ in range(NUMBER_TRIES):
            known = await self.all()
            if sum(one.record.is_open for one in known) >= OPEN_MAX:
                raise PlacementError(f"{OPEN_MAX} plans have not ended", hint="`dwcp-migrate plan abort ID` ends one")
            await self._forget_oldest(known)
            number = max((one.record.id for one in known), default=0) + 1
            numbered = msgspec.structs.replace(record, id=number, by=record.by or self.name)
            try:
                return await self._put_document(numbered, 0) if self.is_shared else self._put_own(numbered, 0)
            except StalePlanError:
                continue  # another host took the number
        raise PlacementError("others begin plans all the time", hint="try again")

    async def _forget_oldest(self, known: list[StoredPlan]) -> None:
        ended = [one for one in known if not one.record.is_open]
        for one in ended[: max(0, len(ended) - ENDED_KEPT + 1)]:
            if self.is_shared:
                await self._coordination.submit(DropDocument(name=f"{PREFIX}{one.record.id}", revision=one.revision))
            else:
                self._write([kept for kept in self._file() if kept.record.id != one.record.id])

    async def _put_document(self, record: PlanRecord, revision: int) -> StoredPlan:
        document = PutDocument(name=f"{PREFIX}{record.id}", revision=revision, body=encode_record(record))
        return StoredPlan(revision=await put_document(self._coordination, document, f"plan {record.id}"), record=record)

    def _file(self) -> list[StoredPlan]:
        if self._own is None:
            try:
                self._own = msgspec.json.decode(self._path.read_bytes(), type=list[StoredPlan])
            except (OSError, msgspec.MsgspecError):
                self._own = []  # none yet, or a file that nobody can read any more
        return self._own

    def _put_own(self, record: PlanRecord, revision: int) -> StoredPlan:
        plans = {one.record.id: one for one in self._file()}
        known = plans.get(record.id)
        if (known.revision if known is not None else 0) != revision:
            raise stale_record(f"plan {record.id}")
        stored = StoredPlan(revision=revision + 1, record=decode_record(encode_record(record)))
        self._write(sorted([*(plans | {record.id: stored}).values()], key=lambda one: one.record.id))
        return stored

    def _write(self, plans: list[StoredPlan]) -> None:
        write_own(self._path, msgspec.json.encode(plans))
        self._own = plans

    async def standing(self) -> "PlanStanding":
        """Facts that decide which host carries the next plan out, from this host's copy of the state."""
        if not self.is_shared:
            return PlanStanding(self._file(), "", 0.0, 0.0, [self.name])
        return await self._coordination.look(_standing_of)


class PlanStanding(msgspec.Struct, frozen=True):
    """Plans, and who may carry them out.

    Attributes:
        plans: all that are kept.
        holder: of the lease; empty where it is free.
        free_since: when it ran out last, by the fleet's time; 0 where nobody ever held it.
        now: the fleet's time.
        hosts: that are up, in their order.
    """

    plans: list[StoredPlan]
    holder: str
    free_since: float
    now: float
    hosts: list[str]


def _plans_of(fleet: FleetState) -> list[StoredPlan]:
    found = [
        StoredPlan(revision=one.revision, record=decode_record(one.body))
        for name, one in fleet.documents.items()
        if name.startswith(PREFIX)
    ]
    return sorted(found, key=lambda one: one.record.id)


def _standing_of(fleet: FleetState) -> PlanStanding:
    lease = fleet.leases.get(LEASE)
    documents = [one.changed_at for name, one in fleet.documents.items() if name.startswith(PREFIX)]
    return PlanStanding(
        plans=_plans_of(fleet),
        holder=lease_holder(fleet, LEASE),
        free_since=max([lease.expires_at if lease is not None else 0.0, *documents]),
        now=fleet.now,
        hosts=sorted(host.name for host in fleet.hosts.values() if host.state != "down"),
    )
