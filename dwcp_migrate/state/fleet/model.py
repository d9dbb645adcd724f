"""Model of the cluster state: hosts, domains and owners, tickets, leases, reservations, limits, rules. No IO.

The rule: this is data only. It changes by `machine.apply` and nowhere else, every table has a named limit, times are
values that came in commands, and a fencing token is the number in the log of the command that gave it: it only grows.

    domain   owner and generation; the generation begins with the number of the command that made the domain known and
             grows by one each time that the owner changes: never the same twice, also for one forgotten in between
    ticket   granted ─> running ─> completed        the destination resumed: ownership moved, exactly once
                │          ├────> failed            it runs at the source still
                │          └────> conflict          it runs on both: nothing moves it until an operator resolves it
                └> expired, failed                  no byte flowed
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dwcp_migrate.placement_rule import PlacementRule
from dwcp_migrate.units import PORT_MAX, PORT_MIN

VERSION: Final = 2
"""The newest version of commands and states that this software reads; a replica that meets a newer one stops."""

FIRST_VERSION: Final = 1
"""That of release 0.1.0; a fleet stays at it until an operator raises it (`SetVersion`)."""

HOSTS_MAX: Final = 1024
REACH_ADDRESSES_MAX: Final = 16
"""That one host publishes."""
DOMAINS_MAX: Final = {FIRST_VERSION: 65536, VERSION: 262144}
"""By the version that the fleet is at: all of its replicas must come to a full table at the same command."""
OPEN_TICKETS_MAX: Final = 4096
ENDED_TICKETS_MAX: Final = 1024
"""Tickets that ended are kept for people; the oldest make room."""
LEASES_MAX: Final = 1024
RESERVATIONS_MAX: Final = 4096
RULES_MAX: Final = 1024
DOCUMENTS_MAX: Final = 64
DOCUMENT_BYTES_MAX: Final = 96 * 1024
LABELS_MAX: Final = 64
CERTIFICATE_BYTES_MAX: Final = 32 * 1024
"""100 signatures of 64 bytes with names of voters take half of it."""
REQUEST_WINDOW: Final = 256
"""Outcomes remembered for each host. A host never has a request open that is this many behind its newest."""
LIFETIME_S_MAX: Final = 24 * 3600.0

Name = Annotated[str, Meta(min_length=1, max_length=253)]
"""A host's DNS name (RFC 1035, 2.3.4), also used for what operators name."""
Text = Annotated[str, Meta(max_length=256)]
Uuid = Annotated[str, Meta(min_length=1, max_length=36)]
RequestId = Annotated[str, Meta(min_length=1, max_length=64)]
Seconds = Annotated[float, Meta(ge=0, le=1e11)]
Lifetime = Annotated[float, Meta(gt=0, le=LIFETIME_S_MAX)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Labels = Annotated[dict[Text, Text], Meta(max_length=LABELS_MAX)]
Certificate = Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]

HostState = Literal["up", "draining", "down"]
TicketState = Literal["granted", "running", "completed", "failed", "expired", "conflict"]
OPEN_STATES: Final = frozenset({"granted", "running", "conflict"})
"""A domain with a ticket in one of these gets no other."""
RULE_NAMES_MAX: Final = 256
"""Domains of one rule, and zones: both together fit into a command."""


class HostCapacity(msgspec.Struct, frozen=True):
    """Capacity of a host; 0 is unknown."""

    cpus: Count = 0
    memory_bytes: Count = 0


class HostReach(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of a host, as it publishes them.

    Attributes:
        addresses: that migrations to it dial.
        migration_address: at which its QEMU listens, of its qemu.conf; empty is everywhere.
        port: of its agent's link.
        port_min: of the range that its libvirt takes ports for migrations from, and
        port_max: the last one.
    """

    addresses: Annotated[tuple[Text, ...], Meta(max_length=REACH_ADDRESSES_MAX)] = ()
    migration_address: Text = ""
    port: PortNumber = 7802
    port_min: PortNumber = PORT_MIN
    port_max: PortNumber = PORT_MAX


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A hypervisor.

    Attributes:
        trust_domain: hosts of one trust domain believe each other; a migration across needs a certificate.
        heard_at: when it last said that it lives, seconds since the epoch by its own clock.
        reads: newest version that its software reads. No outcome may depend on it: release 0.1.0 does not keep it.
        reach: where it is reached, with the same reservation.
    """

    name: Name
    trust_domain: Text = ""
    labels: Labels = {}
    capacity: HostCapacity = HostCapacity()
    state: HostState = "up"
    heard_at: Seconds = 0.0
    reads: Count = FIRST_VERSION
    reach: HostReach = HostReach()


class DomainRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A domain and the one host that may run it."""

    uuid: Uuid
    name: Text = ""
    owner: Name
    generation: Count = 1
    memory_bytes: Count = 0


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Permission for one migration.

    Attributes:
        token: fencing token, the number of the grant in the log; also its name.
        generation: of the domain when it was granted; a ticket of an older one is worth nothing.
        expires_at: a ticket that was not begun by then is void. One that runs does not expire.
        certificate: what proves it across trust domains; opaque here.
    """

    token: Count
    uuid: Uuid
    source: Name
    destination: Name
    generation: Count
    granted_at: Seconds
    expires_at: Seconds
    state: TicketState = "granted"
    changed_at: Seconds = 0.0
    reason: Text = ""
    certificate: Certificate = b""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lock with an end; `token` goes with every act that it covers, so that a late holder is recognised."""

    name: Name
    holder: Name
    token: Count
    expires_at: Seconds


class LinkReservation(msgspec.Struct, frozen=True, kw_only=True):
    """A share of the link from `source` to `destination`."""

    name: Name
    source: Name
    destination: Name
    holder: Name
    bytes_per_s: Count
    token: Count
    expires_at: Seconds


class RuleRecord(PlacementRule, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A placement rule of the fleet, short enough for a command; one without domains is kept for later ones."""

    name: Name
    domains: Annotated[list[Text], Meta(max_length=RULE_NAMES_MAX)] = msgspec.field(default_factory=list)
    zones: Annotated[list[Text], Meta(max_length=RULE_NAMES_MAX)] = msgspec.field(default_factory=list)
    limit: Annotated[int, Meta(ge=1, le=2**53)] = 1


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A text that the fleet keeps for its agents, opaque here: a plan that is carried out, a setting of a service.

    Attributes:
        revision: number of the command that wrote it; a change names the revision that its author read.
        by: the host that wrote it.
    """

    name: Name
    revision: Count
    by: Name
    changed_at: Seconds
    body: Annotated[bytes, Meta(max_length=DOCUMENT_BYTES_MAX)] = b""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on migrations at once; 0 is no limit.

    Attributes:
        link_bytes_per_s: what may be reserved of each link, by `source>destination`; others are not limited.
    """

    fleet: Count = 0
    outgoing: Count = 8
    incoming: Count = 8
    link_bytes_per_s: Annotated[dict[Text, Count], Meta(max_length=4096)] = {}


class TicketOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """Outcome of a command.

    Attributes:
        code: empty when it was done, else the reason: a key of `refusals.BY_CLUSTER_STATE`.
        token: of the ticket, lease or reservation that it gave or is about; 0 for none.
    """

    code: Text = ""
    token: Count = 0


class FleetState(msgspec.Struct, kw_only=True):
    """The whole state.

    Attributes:
        version: that the fleet is at; hosts that do not read it cannot take part any more.
        now: the latest time that a command brought; it goes back by `SetClock` only.
        index: number of the last command applied; barriers and repeated requests have none.
        outcomes: for each host the outcomes of its last `REQUEST_WINDOW` requests, oldest first.
    """

    version: Count = FIRST_VERSION
    now: Seconds = 0.0
    index: Count = 0
    hosts: dict[str, HostRecord] = {}
    domains: dict[str, DomainRecord] = {}
    open_tickets: dict[str, Ticket] = {}
    ended_tickets: dict[int, Ticket] = {}
    leases: dict[str, Lease] = {}
    reservations: dict[str, LinkReservation] = {}
    rules: dict[str, RuleRecord] = {}
    limits: Limits = Limits()
    outcomes: dict[str, dict[str, TicketOutcome]] = {}
    documents: dict[str, Document] = {}

    def ticket(self, token: int) -> Ticket | None:
        """Find a ticket, open or ended."""
        found = self.ended_tickets.get(token)
        if found is not None:
            return found
        return next((ticket for ticket in self.open_tickets.values() if ticket.token == token), None)


def domains_max(fleet: FleetState) -> int:
    """Return how many domains a fleet may know, at the version that it is at."""
    return DOMAINS_MAX[min(fleet.version, VERSION)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(FleetState)


def encode(fleet: FleetState) -> bytes:
    """Write a snapshot; equal states give equal bytes, because tables keep the order of the log."""
    return _encoder.encode(fleet)


def decode(data: bytes) -> FleetState:
    """Read a snapshot.

    Raises:
        msgspec.DecodeError: it is none, or breaks a limit.
        ValueError: of a newer version than this software knows.
    """
    fleet: FleetState = _decoder.decode(data)
    if fleet.version > VERSION:
        raise ValueError(f"state of version {fleet.version}, this software knows {VERSION}")
    return fleet
