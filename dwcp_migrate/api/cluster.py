"""Answers of the control API about the cluster state.

The rule: as in `api`: these structs are the contract; fields are added, never renamed or removed.

    GET  /v1/cluster                        Cluster
    GET  /v1/pbft                           PbftView
    POST /v1/pbft/propose                   Changed      the body is an `agent.pbft.membership_change.Change` as JSON;
                                                         returns when the change is in force
    POST /v1/pbft/assign?uuid=U&owner=N     Changed      N owns U for the group; nobody if N is empty
    GET  /v1/tickets                        TicketList      open ones first, then those that ended, newest first
    GET  /v1/locks                          Locks
    GET  /v1/export                         FleetBackup     the record, as a majority confirms it or as it is known here
    GET  /v1/standing                       PlacementConstraints     what placement must respect
    POST /v1/cluster/add?name=N             Changed      N gets a vote
    POST /v1/cluster/remove?name=N          Changed      N loses it
    POST /v1/cluster/transfer-leader?name=N Changed      N leads; whoever is furthest if N is empty
    POST /v1/cluster/drain?name=N           Changed      N takes no domains, by the fleet's state
    POST /v1/cluster/undrain?name=N         Changed      N takes them again
    POST /v1/cluster/forget-host?name=N     Changed      N and what is its own are forgotten; it must have no vote
    POST /v1/cluster/forget-domain?uuid=U   Changed
    POST /v1/cluster/assign?uuid=U&owner=N  Changed      N owns U
    POST /v1/cluster/set-time               Changed      the fleet's time goes back to this host's clock
    POST /v1/cluster/raise-version          Changed      the fleet uses what only this release reads
    POST /v1/tickets/fail?token=T           Changed
    POST /v1/rules/put                      Changed      the body is a `state.fleet.model.RuleRecord` as JSON, new or
                                                         replaced
    POST /v1/rules/remove?name=N            Changed
    POST /v1/cluster/limits                 Changed      the body is a `state.fleet.model.Limits` as JSON
    POST /v1/locks/acquire?name=N&lifetime_s=S  HeldLease     this host takes the lease N, or prolongs it
    POST /v1/locks/release?name=N&token=T   Changed
    POST /v1/locks/reserve?name=N&source=A&destination=B&bytes_per_s=R&lifetime_s=S
                                            HeldLease         this host takes a share of the link, or changes it
    POST /v1/locks/unreserve?name=N&token=T Changed

Errors: status 400 for a request that cannot be read, 503 when the fleet does not answer or says no, with the body
`api.schema.Failure`.
"""

from typing import Final, Literal

import msgspec

from dwcp_migrate.state.engine_status import EngineStatus
from dwcp_migrate.state.fleet.model import HostRecord, Lease, Limits, LinkReservation, RuleRecord, Ticket

NO_GROUP: Final = "no group is configured"
"""`GroupStatus.error` of a host without one."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Status of the cluster state.

    Attributes:
        is_shared: there is a fleet's state; otherwise this host keeps its own.
        is_required: migrations that the fleet has not agreed to are refused.
        pbft: what is decided across trust domains: `certificates` where a migration between them needs one, `off` where
            all hosts are of one.
    """

    name: str
    is_shared: bool
    is_required: bool
    trust_domain: str
    pbft: str
    engine: EngineStatus
    hosts: list[HostRecord] = []
    limits: Limits = Limits()


class RecordFacts(msgspec.Struct, frozen=True, kw_only=True):
    """This host's part in the fleet's record.

    Attributes:
        is_shared: there is a fleet; otherwise the host keeps a record of its own.
        engine: where it stands.
        stuck_tickets: this host's tickets that are not being settled, each with domain, hosts, state and age, as text.
    """

    is_shared: bool = False
    engine: EngineStatus = EngineStatus(engine="raft", state="leader")
    stuck_tickets: list[str] = []


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Status of the PBFT group, seen from this host.

    Attributes:
        role: of this host: `replica`, `client`, or `none`.
        members: names, in the order in which they become primary.
        connected: members that this host's client is connected to.
        faulty_max: members that may fail or lie in any way.
        epoch: newest one whose members this host verified.
        epoch_configured: that of `coordination.pbft`.
        epoch_replica: that the replica here is in; -1 without one. Behind `epoch` it is catching up.
        unreachable: members that are no peers of this host.
        note: where configuration and verified members differ, and which count.
        view: that the replica here is in; 0 on clients.
        sequence: last one executed here.
        view_changes: that the replica here entered.
        batches: executed here, empty ones not counted.
        batched_requests: requests in them.
        batch_p50: requests in the batches executed lately; 0 before the first.
        batch_max: likewise.
        decisions: that this host asked for and got.
        decisions_failed: that it did not get in time.
        decision_ms_p50: of this host's last decisions; -1 before the first.
        decision_ms_max: likewise.
        epoch_heard: that so many others say they are in that one of them is right; 0 where nobody is ahead.
        owed: reports of this host on ended migrations that the group has not confirmed yet.
        error: why this host takes no part.
    """

    role: Literal["replica", "client", "none"] = "none"
    members: list[str] = []
    connected: list[str] = []
    faulty_max: int = 0
    epoch: int = 0
    epoch_configured: int = 0
    epoch_replica: int = -1
    unreachable: list[str] = []
    note: str = ""
    primary: str = ""
    view: int = 0
    sequence: int = 0
    view_changes: int = 0
    batches: int = 0
    batched_requests: int = 0
    batch_p50: float = 0.0
    batch_max: int = 0
    decisions: int = 0
    decisions_failed: int = 0
    decision_ms_p50: float = -1.0
    decision_ms_max: float = -1.0
    owed: int = 0
    epoch_heard: int = 0
    error: str = ""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of the engine that is to decide a migration, and the reason."""

    at: float
    source: str
    destination: str
    engine: str
    reason: str
    fallback: bool


class EngineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An engine stopped deciding, or decided again."""

    at: float
    engine: str
    usable: bool
    reason: str


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """A host of the PBFT group with its public key."""

    name: str
    key: str
    votes: bool
    operator: bool


class PbftView(msgspec.Struct, frozen=True, kw_only=True):
    """The PBFT group, and who decided lately; newest first.

    Attributes:
        cluster: random name of the group; empty without one.
        seats: members and clients of the newest epoch.
    """

    mode: str
    group: GroupStatus
    cluster: str = ""
    seats: list[GroupMember] = []
    choices: list[Chosen] = []
    events: list[EngineEvent] = []


class TicketList(msgspec.Struct, frozen=True, kw_only=True):
    """Tickets; `is_fresh` is False where the fleet did not answer and they are what this host knows."""

    is_fresh: bool
    tickets: list[Ticket]


class Locks(msgspec.Struct, frozen=True, kw_only=True):
    """Leases and reservations that are held now; see `TicketList` for `is_fresh`."""

    is_fresh: bool
    now: float
    leases: list[Lease]
    reservations: list[LinkReservation]


class InFlightMigration(msgspec.Struct, frozen=True, kw_only=True):
    """A migration with an open ticket; `domain` is empty where the fleet was never told its name."""

    domain: str
    source: str
    destination: str


class PlacementConstraints(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the cluster state that placement must respect.

    Attributes:
        is_fresh: see `TicketList`.
        draining: hosts that take no domains.
        hosts: labels and capacity that each host reports of itself.
        flights: migrations under way or about to begin.
    """

    is_fresh: bool
    rules: list[RuleRecord] = []
    draining: list[str] = []
    hosts: list[HostRecord] = []
    flights: list[InFlightMigration] = []
    limits: Limits = Limits()


class HeldLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease or a reservation of this host; `token` gives it back."""

    name: str
    token: int


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A change that took effect; `message` is for people."""

    message: str
