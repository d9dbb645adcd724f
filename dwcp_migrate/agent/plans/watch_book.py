"""The record of the service that relieves the fleet: a document of the fleet's state, else a file of this host."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.plans.document import lease_holder, put_document, stale_record, write_own
from dwcp_migrate.api.watch import StoredWatch, WatchRecord, decode_watch, encode_watch
from dwcp_migrate.state.fleet.commands import Acquire, PutDocument
from dwcp_migrate.state.fleet.model import FleetState

DOCUMENT: Final = "watch"
WHAT: Final = "the watch's record"
WATCH_NAME: Final = "watch.json"
LEASE: Final = "watch"
"""Held by the agent that looks."""


class WatchBook:
    """The record.

    Args:
        coordination: the fleet's state.
        is_shared: whether there is one.
        directory: of this host's file where there is none.
        name: of this host.
    """

    def __init__(
        self, coordination: ClusterStateClient, is_shared: Callable[[], bool], directory: Path, name: str
    ) -> None:
        self._coordination, self._is_shared, self._name = coordination, is_shared, name
        self._path = directory / WATCH_NAME

    async def read(self, *, fresh: bool = True) -> StoredWatch:
        """The record as it is.

        Raises:
            CoordinationError: the fleet cannot be asked.
        """
        if self._is_shared():
            return await self._coordination.look(_watch_of, fresh=fresh)
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=StoredWatch)
        except (OSError, msgspec.MsgspecError):
            return StoredWatch()

    async def put(self, record: WatchRecord, revision: int) -> StoredWatch:
        """Keep the record; see `orchestration.watch_round.WatchStore.put`.

        Args:
            record: to keep.
            revision: that the change is of; 0 where none was written before.

        Raises:
            StalePlanError: somebody else changed it meanwhile.
            PlacementError: the file cannot be written.
            CoordinationError: the fleet cannot be asked, or says no.
        """
        if self._is_shared():
            document = PutDocument(name=DOCUMENT, revision=revision, body=encode_watch(record))
            return StoredWatch(revision=await put_document(self._coordination, document, WHAT), record=record)
        if (await self.read()).revision != revision:
            raise stale_record(WHAT)
        stored = StoredWatch(revision=revision + 1, record=decode_watch(encode_watch(record)))
        write_own(self._path, msgspec.json.encode(stored))
        return stored

    async def takes_turn(self, lifetime_s: float) -> bool:
        """Whether it is this host's turn to look: it holds the lease, or gets it.

        Args:
            lifetime_s: of the lease.

        Raises:
            CoordinationError: the fleet cannot be asked.
        """
        if not self._is_shared():
            return True
        holder = await self._coordination.look(lambda fleet: lease_holder(fleet, LEASE))
        if holder not in {"", self._name}:
            return False
        return not (await self._coordination.submit(Acquire(name=LEASE, lifetime_s=lifetime_s))).code


def _watch_of(fleet: FleetState) -> StoredWatch:
    known = fleet.documents.get(DOCUMENT)
    return StoredWatch() if known is None else StoredWatch(revision=known.revision, record=decode_watch(known.body))
