"""The handlers of operators' repairs of the fleet's record: hosts, domains, tickets, time, version.

Each is asked back by the command line; here it is done.
"""

from collections.abc import Awaitable, Callable, Mapping

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient, check_outcome
from dwcp_migrate.api.cluster import Changed
from dwcp_migrate.errors import ConfigError, CoordinationError
from dwcp_migrate.state.fleet.commands import (
    AssignDomain,
    Body,
    DropDomain,
    EndTicket,
    ForgetHost,
    SetClock,
    SetVersion,
)
from dwcp_migrate.state.fleet.model import VERSION

Change = Callable[[Mapping[str, str], bytes], Awaitable[Changed]]


class RepairHandlers:
    """Handlers that repair the fleet's record.

    Args:
        coordination: the fleet's state.
    """

    def __init__(self, coordination: ClusterStateClient) -> None:
        self._coordination = coordination

    def changes(self) -> dict[str, Change]:
        """Handlers by the path below `/v1/`."""
        return {
            "cluster/forget-host": lambda query, _: self._forget_host(query),
            "cluster/forget-domain": lambda query, _: self._forget_domain(query),
            "cluster/assign": lambda query, _: self._assign(query),
            "cluster/set-time": lambda *_: self._set_time(),
            "cluster/raise-version": lambda *_: self._raise_version(),
            "tickets/fail": lambda query, _: self._fail(query),
        }

    async def _forget_host(self, query: Mapping[str, str]) -> Changed:
        name = query.get("name", "")
        status = await self._coordination.status()
        if any(member.name == name and member.role != "observer" for member in status.members):
            raise CoordinationError(f"{name} has a vote", hint=f"first `dwcp-migrate cluster remove {name}`")
        await self._done(ForgetHost(name=name))
        return Changed(message=f"the fleet has forgotten {name} and what was its own")

    async def _forget_domain(self, query: Mapping[str, str]) -> Changed:
        uuid = query.get("uuid", "")
        await self._done(DropDomain(uuid=uuid))
        return Changed(message=f"the fleet has forgotten {uuid}")

    async def _assign(self, query: Mapping[str, str]) -> Changed:
        uuid, owner = query.get("uuid", ""), query.get("owner", "")
        await self._done(AssignDomain(uuid=uuid, owner=owner))
        return Changed(message=f"{owner} owns {uuid}")

    async def _set_time(self) -> Changed:
        before = await self._coordination.look(lambda fleet: fleet.now)
        await self._done(SetClock())
        after = await self._coordination.look(lambda fleet: fleet.now)
        if after >= before:
            return Changed(message="the fleet's time is not ahead of this host's clock")
        return Changed(message=f"the fleet's time is {before - after:.0f} s earlier, that of this host's clock")

    async def _raise_version(self) -> Changed:
        await self._done(SetVersion(version=VERSION))
        return Changed(message=f"the fleet is at version {VERSION}")

    async def _fail(self, query: Mapping[str, str]) -> Changed:
        try:
            token = int(query.get("token", ""))
        except ValueError as error:
            raise ConfigError(f"token: {error}", hint="`dwcp-migrate tickets` shows it") from error
        await self._done(EndTicket(token=token, reason="an operator ended it"))
        return Changed(message=f"ticket {token} has failed; the domain is its owner's")

    async def _done(self, body: Body) -> None:
        check_outcome(await self._coordination.submit(body))
