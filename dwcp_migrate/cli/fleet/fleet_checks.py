"""The judgements of `dwcp-migrate doctor` about the fleet's record and the PBFT group."""

from collections.abc import Iterator
from typing import Final

from dwcp_migrate.api.cluster import NO_GROUP, GroupStatus, RecordFacts
from dwcp_migrate.cli.host.check import Check, advised_check, required_check
from dwcp_migrate.cli.support import output

TIME_AHEAD_S_MAX: Final = 60.0
"""Largest lead of the fleet's time over this host's clock, as in the alert."""

TICKETS_NAMED_MAX: Final = 5


def judge_fleet(fleet: RecordFacts) -> Iterator[Check]:
    """Judge this host's part in the fleet's record; one host by itself has a record of its own."""
    yield _replica(fleet)
    ahead_s = fleet.engine.time_ahead_s
    yield advised_check(
        "fleet-time",
        hold=ahead_s <= TIME_AHEAD_S_MAX,
        what="that of this host's clock"
        if ahead_s <= TIME_AHEAD_S_MAX
        else f"{ahead_s:.0f} s ahead of this host's clock",
        why="tickets and leases that ought to run out do not, and no crash is settled",
        remedy="right the clock that is wrong, then dwcp-migrate cluster set-time on a host whose clock is right",
    )
    named = ", ".join(fleet.stuck_tickets[:TICKETS_NAMED_MAX])
    more = len(fleet.stuck_tickets) - TICKETS_NAMED_MAX
    yield advised_check(
        "tickets",
        hold=not fleet.stuck_tickets,
        what=f"open, and nobody settles them: {named}{f' and {more} more' if more > 0 else ''}"
        if named
        else "none is stuck",
        why="their guests get no other ticket: they migrate unaccelerated, or not at all with coordination.require",
        remedy="both hosts' libvirt must answer: dwcp-migrate doctor on both; then dwcp-migrate tickets fail TOKEN",
    )


def _replica(fleet: RecordFacts) -> Check:
    engine = fleet.engine
    if engine.state == "stopped":
        what, remedy = (
            engine.error or "stopped",
            "journalctl -u dwcp-migrate names the disk or the error; then restart it",
        )
    elif fleet.is_shared and not engine.leader:
        away = [member.name for member in engine.members if not member.connected and member.role != "observer"]
        what = f"no majority: {output.counted(len(away), 'voter is', 'voters are')} not connected ({', '.join(away)})"
        what = what if away else f"no majority{f': {engine.error}' if engine.error else ''}"
        remedy = "more than half of the voters (the etcd members) must run and reach each other on the link port"
    else:
        what, remedy = f"{engine.state}{f', led by {engine.leader}' if engine.leader else ''}", ""
    return required_check(
        "fleet",
        hold=not remedy,
        what=what if fleet.is_shared or remedy else "this host keeps a record of its own",
        why="without it migrations are agreed point to point, or refused with coordination.require",
        remedy=remedy,
    )


def judge_group(group: GroupStatus) -> Iterator[Check]:
    """Judge this host's part in the PBFT group."""
    verdict, remedy = "ok", ""
    what = f"{group.role} of epoch {group.epoch}, members {', '.join(group.members)}"
    quorum = (len(group.members) + group.faulty_max) // 2 + 1
    if group.error in {"", NO_GROUP} and not group.members:
        what = NO_GROUP
    elif group.error:
        verdict, what, remedy = "fail", group.error, "see `dwcp-migrate cluster pbft` and the agent's log"
    elif len(group.connected) < quorum and group.role != "none":
        verdict = "fail"
        what = f"no quorum: {len(group.connected)} of {len(group.members)} members are connected, it takes {quorum}"
        remedy = "run dwcp-migrate cluster pbft on the members: they must run and reach each other on the link port"
    elif group.epoch_heard > group.epoch:
        verdict = "fail"
        what = f"{what}; others are in epoch {group.epoch_heard}"
        remedy = "is this host 64 changes behind? take over what `dwcp-migrate cluster pbft --toml` prints on another"
    elif 0 <= group.epoch_replica < group.epoch:
        verdict = "warn"
        what = f"{what}; the replica here is in epoch {group.epoch_replica}"
        remedy = "it fetches the state of the others; journalctl -u dwcp-migrate if that does not end"
    elif group.unreachable:
        verdict = "warn"
        what = f"{what}; {', '.join(group.unreachable)} cannot be dialled"
        remedy = "add them to [[peers]], then systemctl reload dwcp-migrate"
    elif group.note:
        verdict = "warn"
        what = f"{what}; {group.note}"
        remedy = "take over what `dwcp-migrate cluster pbft --toml` prints: a host that loses its disk starts from it"
    yield Check(
        id="pbft",
        verdict="fail" if verdict == "fail" else "warn" if verdict == "warn" else "ok",
        what=what,
        why="a migration between trust domains needs a certificate of the group's members",
        remedy=remedy,
    )
    yield advised_check(
        "pbft-owed",
        hold=not group.owed,
        what=f"{output.counted(group.owed, 'end', 'ends')} of migrations not told to the group"
        if group.owed
        else "nothing",
        why="the guests of those migrations get no other certificate",
        remedy="the agent tells them by itself as soon as the group has a quorum; see pbft",
    )
