"""Control API of the shared constraints: placement rules, limits, leases, in-flight migrations.

The rule: as in `api.cluster`. A plan must not rest on an old answer, so each answer says whether it may be one.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient, check_outcome
from dwcp_migrate.api.cluster import Changed, HeldLease, InFlightMigration, PlacementConstraints
from dwcp_migrate.errors import ConfigError, CoordinationError, LimitExceededError, NoQuorumError
from dwcp_migrate.state.fleet.commands import (
    Acquire,
    Body,
    DropRule,
    PutRule,
    Release,
    Reserve,
    SetHostState,
    SetLimits,
    Unreserve,
)
from dwcp_migrate.state.fleet.model import LIFETIME_S_MAX, FleetState, Lease, Limits, LinkReservation, RuleRecord

LEASE_S_MAX: Final = 600.0
"""Longest lease that the control API gives: one whose holder died is free again after that."""

RATE_MAX: Final = 2**53
"""Bytes per second that a reservation may name."""

Change = Callable[[Mapping[str, str], bytes], Awaitable[msgspec.Struct]]


class PlacementHandlers:
    """Handlers of placement rules, limits, leases and reservations.

    Args:
        coordination: the fleet's state.
    """

    def __init__(self, coordination: ClusterStateClient) -> None:
        self._coordination = coordination

    def changes(self) -> dict[str, Change]:
        """Handlers of what changes something, by the path below `/v1/`."""
        return {
            "cluster/drain": lambda query, _: self._set_state(query, draining=True),
            "cluster/undrain": lambda query, _: self._set_state(query, draining=False),
            "rules/put": lambda _, body: self._put_rule(body),
            "rules/remove": lambda query, _: self._drop_rule(query),
            "locks/acquire": lambda query, _: self._acquire(query),
            "locks/release": lambda query, _: self._release(query),
            "locks/reserve": lambda query, _: self._reserve(query),
            "locks/unreserve": lambda query, _: self._unreserve(query),
            "cluster/limits": lambda _, body: self._set_limits(body),
        }

    async def read_constraints(self) -> PlacementConstraints:
        """See `PlacementConstraints`."""
        try:
            found, is_fresh = await self._coordination.look(standing_of, fresh=True), True
        except NoQuorumError:
            found, is_fresh = await self._coordination.look(standing_of), False
        return msgspec.structs.replace(found, is_fresh=is_fresh)

    async def _set_state(self, query: Mapping[str, str], *, draining: bool) -> Changed:
        name = query.get("name", "")
        outcome = await self._coordination.submit(SetHostState(name=name, state="draining" if draining else "up"))
        if outcome.code == "unknown-host":  # none without an agent gets a ticket either
            return Changed(message=f"the fleet does not know {name}")
        check_outcome(outcome)
        return Changed(message=f"{name} {'drains' if draining else 'takes domains again'}")

    async def _put_rule(self, body: bytes) -> Changed:
        try:
            rule = msgspec.json.decode(body, type=RuleRecord)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"rule: {error}", hint="at most 256 domains and 256 zones a rule") from error
        try:
            await self._done(PutRule(rule=rule))
        except LimitExceededError as error:
            raise ConfigError(f"rule {rule.name}: {error}", hint="make two of it") from error
        return Changed(message=f"{rule.name} is a rule of the fleet")

    async def _drop_rule(self, query: Mapping[str, str]) -> Changed:
        name = query.get("name", "")
        await self._done(DropRule(name=name))
        return Changed(message=f"{name} is no rule of the fleet")

    async def _acquire(self, query: Mapping[str, str]) -> HeldLease:
        name, lifetime_s = query.get("name", ""), _number(query, "lifetime_s", LEASE_S_MAX)
        outcome = await self._coordination.submit(Acquire(name=name, lifetime_s=lifetime_s))
        if outcome.code == "held":
            lease = await self._coordination.look(lambda fleet: fleet.leases.get(name))
            holder = lease.holder if lease else "another host"
            raise CoordinationError(f"{holder} holds the lease {name}", hint="`dwcp-migrate locks` shows until when")
        check_outcome(outcome)
        return HeldLease(name=name, token=outcome.token)

    async def _release(self, query: Mapping[str, str]) -> Changed:
        name, token = query.get("name", ""), int(_number(query, "token", 2**53))
        await self._done(Release(name=name, token=token))
        await self._check_given_back(name, token, lambda fleet: fleet.leases.get(name), f"the lease {name}")
        return Changed(message=f"{name} is free")

    async def _check_given_back(
        self, name: str, token: int, find: Callable[[FleetState], Lease | LinkReservation | None], what: str
    ) -> None:
        """Look whether it is held all the same: the record leaves alone what has another token, without a word.

        Raises:
            CoordinationError: it is held, with another token than this one.
        """

        def holder_of(fleet: FleetState) -> str:
            held = find(fleet)
            return held.holder if held is not None and held.expires_at > fleet.now and held.token != token else ""

        if holder := await self._coordination.look(holder_of):
            raise CoordinationError(
                f"{what} is not held with the token {token}, but by {holder} with another",
                hint=f"`dwcp-migrate locks` shows who holds {name}, and with which token",
            )

    async def _reserve(self, query: Mapping[str, str]) -> HeldLease:
        body = Reserve(
            name=query.get("name", ""),
            source=query.get("source", ""),
            destination=query.get("destination", ""),
            bytes_per_s=round(_number(query, "bytes_per_s", RATE_MAX)),
            lifetime_s=_number(query, "lifetime_s", LIFETIME_S_MAX),
        )
        outcome = await self._coordination.submit(body)
        check_outcome(outcome)
        return HeldLease(name=body.name, token=outcome.token)

    async def _unreserve(self, query: Mapping[str, str]) -> Changed:
        name, token = query.get("name", ""), int(_number(query, "token", 2**53))
        await self._done(Unreserve(name=name, token=token))
        await self._check_given_back(name, token, lambda fleet: fleet.reservations.get(name), f"the share {name}")
        return Changed(message=f"{name} is given back")

    async def _set_limits(self, body: bytes) -> Changed:
        try:
            limits = msgspec.json.decode(body, type=Limits)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"limits: {error}") from error
        await self._done(SetLimits(limits=limits))
        return Changed(message="the limits are set")

    async def _done(self, body: Body) -> None:
        check_outcome(await self._coordination.submit(body))


def standing_of(fleet: FleetState) -> PlacementConstraints:
    """Say what placement must respect of a state."""
    names = {uuid: domain.name for uuid, domain in fleet.domains.items()}
    flights = [
        InFlightMigration(domain=names.get(ticket.uuid, ""), source=ticket.source, destination=ticket.destination)
        for ticket in fleet.open_tickets.values()
        if ticket.state != "granted" or ticket.expires_at > fleet.now
    ]
    draining = [host.name for host in fleet.hosts.values() if host.state == "draining"]
    return PlacementConstraints(
        is_fresh=True,
        rules=list(fleet.rules.values()),
        draining=draining,
        hosts=list(fleet.hosts.values()),
        flights=flights,
        limits=fleet.limits,
    )


def _number(query: Mapping[str, str], name: str, most: float) -> float:
    """A number of a query.

    Raises:
        ConfigError: it is none, or not between 0 and `most`.
    """
    try:
        found = float(query.get(name, ""))
    except ValueError:
        found = -1.0
    if not 0 < found <= most:
        raise ConfigError(f"{name} must be a number above 0, at most {most:g}")
    return found
