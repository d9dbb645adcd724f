"""The handlers of the control API's part about the fleet's shared state; what they answer stands in `cluster_views`.

The rule: as in `server`: handlers translate. A read of tickets or locks waits for the fleet's confirmation, and says
where there was none.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.http.answers import answer_json
from dwcp_migrate.agent.http.handlers.placement import PlacementHandlers
from dwcp_migrate.agent.http.handlers.repair import RepairHandlers
from dwcp_migrate.agent.pbft.group import PbftGroup
from dwcp_migrate.agent.pbft.membership_change import Change
from dwcp_migrate.api.cluster import Changed, Cluster, Locks, PbftView, TicketList
from dwcp_migrate.api.schema import Failure
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import CoordinationConfig
from dwcp_migrate.errors import ConfigError, CoordinationError, NoQuorumError
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.backup import FleetBackup
from dwcp_migrate.state.fleet.model import FleetState, Limits

STATUS_BAD_REQUEST: Final = 400
STATUS_UNAVAILABLE: Final = 503

CHANGE_S_MAX: Final = 10.0
"""For a change of membership or of the leader; below what the CLI waits."""

T = TypeVar("T")


class ClusterHandlers:
    """Handlers of the cluster state.

    Args:
        name: of this host.
        configured: says what is configured now.
        coordination: the fleet's state.
        pbft: says where the PBFT group stands.
        group: changes its members and its domains' owners on request.
    """

    def __init__(
        self,
        name: str,
        configured: Callable[[], CoordinationConfig],
        coordination: ClusterStateClient,
        pbft: Callable[[], PbftView],
        group: PbftGroup,
    ) -> None:
        self._pbft = pbft
        self._group = group
        self._name = name
        self._configured = configured
        self._coordination = coordination

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        views: dict[str, Callable[[], Awaitable[Any]]] = {
            "cluster": self.cluster,
            "pbft": self.pbft,
            "tickets": self.tickets,
            "locks": self.locks,
            "export": self.export,
        }
        for path, view in views.items():
            app.router.add_get(f"/v1/{path}", _answering(view))
        for verb, act in (("add", self._add), ("remove", self._remove), ("transfer-leader", self._transfer)):
            app.router.add_post(f"/v1/cluster/{verb}", _acting(act))
        app.router.add_post("/v1/pbft/propose", _changing(self._propose))
        app.router.add_post("/v1/pbft/assign", _changing(lambda query, _: self._assign(query)))
        placement = PlacementHandlers(self._coordination)
        app.router.add_get("/v1/standing", _answering(placement.read_constraints))
        for path, change in {**placement.changes(), **RepairHandlers(self._coordination).changes()}.items():
            app.router.add_post(f"/v1/{path}", _changing(change))

    async def cluster(self) -> Cluster:
        """See `Cluster`."""
        configured = self._configured()
        status = await self._coordination.status()
        try:
            hosts, limits = await self._coordination.look(lambda fleet: (list(fleet.hosts.values()), fleet.limits))
        except NoQuorumError:
            hosts, limits = [], Limits()
        crosses = len({host.trust_domain for host in hosts}) > 1
        return Cluster(
            name=self._name,
            is_shared=configured.is_shared,
            is_required=configured.require is True,
            trust_domain=configured.trust_domain,
            pbft="certificates" if crosses else "off",
            engine=status,
            hosts=hosts,
            limits=limits,
        )

    async def pbft(self) -> PbftView:
        """See `PbftView`."""
        return self._pbft()

    async def tickets(self) -> TicketList:
        """See `TicketList`."""
        is_fresh, found = await self._seen(
            lambda fleet: [*fleet.open_tickets.values(), *reversed(fleet.ended_tickets.values())]
        )
        return TicketList(is_fresh=is_fresh, tickets=found)

    async def locks(self) -> Locks:
        """See `Locks`."""
        is_fresh, (now, leases, reservations) = await self._seen(
            lambda fleet: (
                fleet.now,
                [held for held in fleet.leases.values() if held.expires_at > fleet.now],
                [held for held in fleet.reservations.values() if held.expires_at > fleet.now],
            )
        )
        return Locks(is_fresh=is_fresh, now=now, leases=leases, reservations=reservations)

    async def export(self) -> FleetBackup:
        """See `FleetBackup`."""
        is_confirmed, state = await self._seen(model.encode)
        status = await self._coordination.status()
        return FleetBackup(
            host=self._name,
            at=wall_clock(),
            entry=status.applied_index,
            term=status.term,
            is_confirmed=is_confirmed,
            state=state,
        )

    async def _seen(self, at: Callable[[FleetState], T]) -> tuple[bool, T]:
        try:
            return True, await self._coordination.look(at, fresh=True)
        except NoQuorumError:
            return False, await self._coordination.look(at)

    async def _add(self, name: str) -> Changed:
        await self._coordination.engine.add_member(name, CHANGE_S_MAX)
        return Changed(message=f"{name} has a vote")

    async def _remove(self, name: str) -> Changed:
        await self._coordination.engine.remove_member(name, CHANGE_S_MAX)
        return Changed(message=f"{name} has no vote")

    async def _propose(self, _: Mapping[str, str], body: bytes) -> Changed:
        try:
            change = msgspec.json.decode(body, type=Change)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"not a change of members: {error}") from error
        membership = await self._group.propose(change)
        members = ", ".join(member.name for member in membership.replicas)
        return Changed(message=f"epoch {membership.epoch} is in force, its members are {members}")

    async def _assign(self, query: Mapping[str, str]) -> Changed:
        uuid, owner = query.get("uuid", ""), query.get("owner", "")
        found = await self._group.assign(uuid, owner)
        whose = f"{found.owner} owns {uuid}" if found.owner else f"nobody owns {uuid}"
        return Changed(message=f"{whose} for the group, generation {found.generation}")

    async def _transfer(self, name: str) -> Changed:
        leader = await self._coordination.engine.transfer_leader(name, CHANGE_S_MAX)
        return Changed(message=f"{leader} leads")


def _answering(view: Callable[[], Awaitable[msgspec.Struct]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return await _told(view)

    return handle


def _acting(act: Callable[[str], Awaitable[msgspec.Struct]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return await _told(lambda: act(request.query.get("name", "")))

    return handle


def _changing(
    change: Callable[[Mapping[str, str], bytes], Awaitable[msgspec.Struct]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        return await _told(lambda: change(request.query, body))

    return handle


async def _told(ask: Callable[[], Awaitable[msgspec.Struct]]) -> web.Response:
    try:
        return answer_json(await ask())
    except CoordinationError as error:
        return answer_json(Failure(error=str(error), hint=error.hint), STATUS_UNAVAILABLE)
    except ConfigError as error:
        return answer_json(Failure(error=str(error), hint=error.hint), STATUS_BAD_REQUEST)
