"""The state machine: one command at a time, the same outcome on every replica. No IO, no clock.

The rule: a command either does all that it says or changes nothing but the table of outcomes; a request that was seen
is answered from that table. Refusals are outcomes, not errors: they are part of the replicated history.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet import documents, leases, repairs, tickets
from dwcp_migrate.state.fleet.model import (
    HOSTS_MAX,
    REQUEST_WINDOW,
    RULES_MAX,
    DomainRecord,
    FleetState,
    HostReach,
    HostRecord,
    TicketOutcome,
    domains_max,
)

DONE: Final = TicketOutcome()

B = TypeVar("B")
Handler = Callable[[FleetState, do.Command], TicketOutcome]


def apply(fleet: FleetState, command: do.Command) -> TicketOutcome:
    """Apply one command that was committed; commands come in the order of the log, which numbers them.

    Args:
        fleet: changed in place; its `index` is the number of the last command, and what tokens are made of.
        command: decoded, its limits kept.
    """
    if isinstance(command.body, do.Barrier):
        return DONE
    seen = fleet.outcomes.setdefault(command.by, {})
    known = seen.get(command.request)
    if known is not None:
        return known
    fleet.index += 1
    fleet.now = max(fleet.now, command.at)
    outcome = _HANDLERS[type(command.body)](fleet, command)
    seen[command.request] = outcome
    if len(seen) > REQUEST_WINDOW:
        del seen[next(iter(seen))]
    if command.by not in fleet.hosts and len(fleet.outcomes) > HOSTS_MAX:
        _forget_stranger(fleet, command.by)
    return outcome


def _forget_stranger(fleet: FleetState, newest: str) -> None:
    """Make room among outcomes of those that are no hosts of the fleet (any more)."""
    for name in fleet.outcomes:
        if name not in fleet.hosts and name != newest:
            del fleet.outcomes[name]
            return


def _put_host(fleet: FleetState, command: do.Command) -> TicketOutcome:
    body = _as(do.PutHost, command)
    if body.name != command.by:
        return TicketOutcome("stranger")
    known = fleet.hosts.get(body.name)
    if known is None and len(fleet.hosts) >= HOSTS_MAX:
        return TicketOutcome("full")
    fleet.hosts[body.name] = HostRecord(
        name=body.name,
        trust_domain=body.trust_domain,
        labels=body.labels,
        capacity=body.capacity,
        state=known.state if known is not None and known.state == "draining" else "up",
        heard_at=command.at,
        reads=body.reads,
        reach=known.reach if known is not None else HostReach(),
    )
    return DONE


def _put_reach(fleet: FleetState, command: do.Command) -> TicketOutcome:
    body = _as(do.PutReach, command)
    if body.name != command.by:
        return TicketOutcome("stranger")
    known = fleet.hosts.get(body.name)
    if known is None:
        return TicketOutcome("unknown-host")
    fleet.hosts[body.name] = replace(known, reach=body.reach)
    return DONE


def _set_host_state(fleet: FleetState, command: do.Command) -> TicketOutcome:
    body = _as(do.SetHostState, command)
    known = fleet.hosts.get(body.name)
    if known is None:
        return TicketOutcome("unknown-host")
    fleet.hosts[body.name] = replace(known, state=body.state)
    return DONE


def _remove_host(fleet: FleetState, command: do.Command) -> TicketOutcome:
    body = _as(do.RemoveHost, command)
    if body.name not in fleet.hosts:
        return TicketOutcome("unknown-host")
    if any(domain.owner == body.name for domain in fleet.domains.values()):
        return TicketOutcome("owns-domains")
    tickets.sweep(fleet)
    if any(body.name in (ticket.source, ticket.destination) for ticket in fleet.open_tickets.values()):
        return TicketOutcome("busy")
    del fleet.hosts[body.name]
    return DONE


def _put_domain(fleet: FleetState, command: do.Command) -> TicketOutcome:
    body = _as(do.PutDomain, command)
    if command.by not in fleet.hosts:
        return TicketOutcome("unknown-host")
    known = fleet.domains.get(body.uuid)
    if known is not None and known.owner != command.by:
        return TicketOutcome("not-owner")
    if known is None and len(fleet.domains) >= domains_max(fleet):
        return TicketOutcome("full")
    base = known or DomainRecord(uuid=body.uuid, owner=command.by, generation=fleet.index)
    fleet.domains[body.uuid] = replace(base, name=body.name, memory_bytes=body.memory_bytes)
    return DONE


def _forget_domain(fleet: FleetState, command: do.Command) -> TicketOutcome:
    body = _as(do.ForgetDomain, command)
    known = fleet.domains.get(body.uuid)
    if known is None:
        return TicketOutcome("unknown-domain")
    if known.owner != command.by:
        return TicketOutcome("not-owner")
    tickets.sweep(fleet)
    if body.uuid in fleet.open_tickets:
        return TicketOutcome("busy")
    del fleet.domains[body.uuid]
    return DONE


def _set_limits(fleet: FleetState, command: do.Command) -> TicketOutcome:
    fleet.limits = _as(do.SetLimits, command).limits
    return DONE


def _put_rule(fleet: FleetState, command: do.Command) -> TicketOutcome:
    rule = _as(do.PutRule, command).rule
    if rule.name not in fleet.rules and len(fleet.rules) >= RULES_MAX:
        return TicketOutcome("full")
    fleet.rules[rule.name] = rule
    return DONE


def _drop_rule(fleet: FleetState, command: do.Command) -> TicketOutcome:
    fleet.rules.pop(_as(do.DropRule, command).name, None)
    return DONE


def _as(kind: type[B], command: do.Command) -> B:
    body = command.body
    assert isinstance(body, kind), "the table of handlers is wrong"
    return body


_HANDLERS: Final[dict[type[Any], Handler]] = {
    do.PutHost: _put_host,
    do.PutReach: _put_reach,
    do.SetHostState: _set_host_state,
    do.RemoveHost: _remove_host,
    do.PutDomain: _put_domain,
    do.ForgetDomain: _forget_domain,
    do.SetLimits: _set_limits,
    do.PutRule: _put_rule,
    do.DropRule: _drop_rule,
    do.Propose: lambda fleet, command: tickets.propose(fleet, command, _as(do.Propose, command)),
    do.Begin: lambda fleet, command: tickets.begin(fleet, command.by, _as(do.Begin, command)),
    do.Resume: lambda fleet, command: tickets.resume(fleet, command.by, _as(do.Resume, command)),
    do.Fail: lambda fleet, command: tickets.fail(fleet, command.by, _as(do.Fail, command)),
    do.Resolve: lambda fleet, command: tickets.resolve(fleet, command.by, _as(do.Resolve, command)),
    do.HandOver: lambda fleet, command: tickets.hand_over(fleet, command.by, _as(do.HandOver, command)),
    do.Acquire: lambda fleet, command: leases.acquire(fleet, command.by, _as(do.Acquire, command)),
    do.Release: lambda fleet, command: leases.release(fleet, command.by, _as(do.Release, command)),
    do.Reserve: lambda fleet, command: leases.reserve(fleet, command.by, _as(do.Reserve, command)),
    do.Unreserve: lambda fleet, command: leases.unreserve(fleet, command.by, _as(do.Unreserve, command)),
    do.ForgetHost: lambda fleet, command: repairs.forget_host(fleet, _as(do.ForgetHost, command)),
    do.DropDomain: lambda fleet, command: repairs.drop_domain(fleet, _as(do.DropDomain, command)),
    do.AssignDomain: lambda fleet, command: repairs.assign(fleet, _as(do.AssignDomain, command)),
    do.EndTicket: lambda fleet, command: repairs.end_ticket(fleet, _as(do.EndTicket, command)),
    do.SetClock: lambda fleet, command: repairs.set_clock(fleet, command.at),
    do.PutDocument: lambda fleet, command: documents.put(fleet, command.by, _as(do.PutDocument, command)),
    do.DropDocument: lambda fleet, command: documents.drop(fleet, _as(do.DropDocument, command)),
    do.SetVersion: lambda fleet, command: repairs.set_version(fleet, _as(do.SetVersion, command)),
}
