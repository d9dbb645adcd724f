"""The record of the service that relieves the fleet: a document of the fleet's state, else a file of this host."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.api.watch import StoredWatch, WatchRecord, decode_watch, encode_watch
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import CoordinationError, PlacementError, StalePlanError
from dwcp_migrate.refusals import BY_CLUSTER_STATE, explain_code
from dwcp_migrate.state.fleet.commands import Acquire, PutDocument
from dwcp_migrate.state.fleet.model import FleetState

DOCUMENT: Final = "watch"
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
        """Keep it; see `orchestration.watch_round.WatchStore.put`.

        Raises:
            StalePlanError: somebody else changed it meanwhile.
            PlacementError: the file cannot be written.
            CoordinationError: the fleet cannot be asked, or says no.
        """
        if self._is_shared():
            body = PutDocument(name=DOCUMENT, revision=revision, body=encode_watch(record))
            outcome = await self._coordination.submit(body)
            if outcome.code == "stale":
                raise StalePlanError("the watch's record was changed by somebody else meanwhile")
            if outcome.code:
                words, remedy = explain_code(BY_CLUSTER_STATE, outcome.code)
                raise CoordinationError(f"the fleet refuses it: {words}", hint=remedy)
            return StoredWatch(revision=outcome.token, record=record)
        if (await self.read()).revision != revision:
            raise StalePlanError("the watch's record was changed by somebody else meanwhile")
        stored = StoredWatch(revision=revision + 1, record=decode_watch(encode_watch(record)))
        try:
            write_whole(self._path, msgspec.json.encode(stored))
        except OSError as error:
            raise PlacementError(f"cannot write {self._path}: {error.strerror}") from error
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
        holder = await self._coordination.look(_holder)
        if holder not in {"", self._name}:
            return False
        return not (await self._coordination.submit(Acquire(name=LEASE, lifetime_s=lifetime_s))).code


def _watch_of(fleet: FleetState) -> StoredWatch:
    known = fleet.documents.get(DOCUMENT)
    return StoredWatch() if known is None else StoredWatch(revision=known.revision, record=decode_watch(known.body))


def _holder(fleet: FleetState) -> str:
    lease = fleet.leases.get(LEASE)
    return lease.holder if lease is not None and lease.expires_at > fleet.now else ""
