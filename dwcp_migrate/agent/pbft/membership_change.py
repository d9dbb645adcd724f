"""A change of the PBFT group's members at an operator's request, made into the next epoch's membership. No IO.

The rule: the members that stay are a quorum of the new group. So the group decides at once, without members that have
yet to fetch the state, and no decision is lost with the members that leave. A group that only grows may add more
members, if those have answered, because all that hold the state stay. Larger changes are made in several steps.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.model.keys import SigningIdentity
from dwcp_migrate.consensus.pbft.model.membership import CLIENTS_MAX, Group, Member, Membership
from dwcp_migrate.consensus.pbft.model.quorum import REPLICAS_MAX, quorum_of
from dwcp_migrate.consensus.pbft.reconfiguration import encode_membership
from dwcp_migrate.errors import ConfigError

NAMES_MAX: Final = 64
"""Hosts named in one change of each kind."""

_Name = Annotated[str, Meta(min_length=1, max_length=253)]
_Key = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A host with its public key, 64 hexadecimal digits; empty: the one that the group has."""

    name: _Name
    key: _Key = ""


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of the membership.

    Attributes:
        add: get a vote; one that has it already gets another key.
        clients: may ask and have no vote.
        remove: have no part in the group.
        operators: may change the members from then on.
        unseen: also where the agent of one that gets a vote does not answer.
    """

    add: Annotated[tuple[Named, ...], Meta(max_length=NAMES_MAX)] = ()
    clients: Annotated[tuple[Named, ...], Meta(max_length=NAMES_MAX)] = ()
    remove: Annotated[tuple[_Name, ...], Meta(max_length=NAMES_MAX)] = ()
    operators: Annotated[tuple[_Name, ...], Meta(max_length=NAMES_MAX)] = ()
    unseen: bool = False


def following(group: Group, change: Change, identity: SigningIdentity) -> Membership:
    """Work out the next epoch's membership.

    Args:
        group: of now.
        change: to it.
        identity: any; tells keys from what is none.

    Raises:
        ConfigError: it changes nothing, names a host twice or one that is unknown, or breaks a limit.
    """
    _check_names(group, change)
    operators = {name for name, member in group.clients.items() if member.operator} | set(change.operators)
    gone = {*change.remove, *(named.name for named in change.clients)}
    added = [_member(group, named, operators, identity) for named in change.add]
    asking = [_member(group, named, operators, identity) for named in change.clients]
    changed = {member.name: member for member in (*added, *asking)}
    votes = [_kept(member, changed, operators) for member in group.membership.replicas if member.name not in gone]
    votes += [member for member in added if member.name not in group.keys]
    clients = [
        _kept(member, changed, operators) for member in group.membership.clients if member.name not in change.remove
    ]
    clients += [member for name, member in changed.items() if name not in group.clients]
    membership = Membership(group.cluster, group.epoch + 1, tuple(votes), tuple(clients))
    _check(group, membership, only_grows=not gone and not change.unseen)
    return membership


def seated(group: Group, membership: Membership) -> tuple[Member, ...]:
    """List the voters of a membership that do not vote in the group, or do so with another key.

    Args:
        group: the members so far.
        membership: the new ones.
    """
    return tuple(member for member in membership.replicas if group.keys.get(member.name) != member.key)


def _kept(member: Member, changed: dict[str, Member], operators: set[str]) -> Member:
    return changed.get(member.name, Member(member.name, member.key, member.name in operators))


def _member(group: Group, named: Named, operators: set[str], identity: SigningIdentity) -> Member:
    known = group.clients.get(named.name)
    key = bytes.fromhex(named.key) if named.key else known.key if known else b""
    if not key:
        raise ConfigError(
            f"{named.name} is not known to the group: its public key is needed",
            hint="`dwcp-migrate cluster key` shows it there; give it as NAME=KEY",
        )
    try:
        identity.shared_key(key)
    except ValueError as error:
        raise ConfigError(f"{named.name}: {error}", hint="`dwcp-migrate cluster key` shows it there") from error
    return Member(named.name, key, named.name in operators)


def _check_names(group: Group, change: Change) -> None:
    names = [*(named.name for named in (*change.add, *change.clients)), *change.remove]
    if not names and not change.operators:
        raise ConfigError("the change names no host", hint="--add NAME=KEY, --client NAME=KEY, --remove NAME")
    if len(set(names)) != len(names):
        raise ConfigError("the change names a host twice", hint="--client also takes a vote")
    unknown = [name for name in change.remove if name not in group.clients and name not in group.keys]
    unknown += [name for name in change.operators if name not in group.clients and name not in names]
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)} has no part in the group", hint="`dwcp-migrate cluster pbft` lists who has"
        )


def _check(group: Group, membership: Membership, *, only_grows: bool) -> None:
    count, asking = len(membership.replicas), len(membership.clients)
    if not 1 <= count <= REPLICAS_MAX or asking > CLIENTS_MAX:
        raise ConfigError(
            f"{count} members and {asking} that ask; 1 to {REPLICAS_MAX} and at most {CLIENTS_MAX} are possible"
        )
    if not any(member.operator for member in membership.clients):
        raise ConfigError("no operator would be left: nobody could change the members again", hint="--operator NAME")
    staying = count - len(seated(group, membership))
    needed = quorum_of(count).quorum
    if staying < needed and not (only_grows and staying == len(group.names)):
        raise ConfigError(
            f"{staying} of {count} members would stay, and {needed} must decide at once", hint="change fewer at a time"
        )
    if (membership.replicas, membership.clients) == (group.membership.replicas, group.membership.clients):
        raise ConfigError("that changes nothing", hint="`dwcp-migrate cluster pbft` shows the members of now")
    try:
        encode_membership(membership)
    except ValueError as error:
        raise ConfigError(str(error), hint="fewer clients: only hosts that cross trust domains need to ask") from error
