"""Catalogue of refusals: the code that programs read, a text for people, and a remedy where there is one.

A code is part of the contract: it stands in messages, records, metrics and `--json`, and keeps its meaning. Each table
belongs to one side that refuses; the same code may have a different text in each, because the sides know different
facts.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Explanation(NamedTuple):
    """A refusal in words."""

    text: str
    remedy: str = ""


Catalogue = Mapping[str, Explanation]

OF_WARM_UP: Final[Catalogue] = {
    "migrates": Explanation("a migration runs at the destination, or another warm-up"),
    "no-store": Explanation("the destination has no page store", "set store.bytes_max there, see docs/known-pages.md"),
    "scope": Explanation(
        "the destination keeps this domain's pages under another scope", "make [[store.scopes]] the same on both hosts"
    ),
    "trust-domain": Explanation("the hosts are of different trust domains: pages are not kept for the other one"),
}
"""Codes of `protocol.control.Refused` that only a warm-up meets."""

BY_PEER: Final[Catalogue] = {
    **OF_WARM_UP,
    "address": Explanation(
        "the address is not one of the destination's own",
        "check the addresses of this peer in [[peers]]: a migration dialled one that the peer does not own",
    ),
    "draining": Explanation(
        "the destination agent is draining",
        "run `dwcp-migrate uncordon` there when it may take migrations again",
    ),
    "duplicate": Explanation("a session of this id exists"),
    "invalid": Explanation("the request breaks a rule"),
    "memory": Explanation(
        "the destination has no memory to spare for a further migration",
        "wait until one of its migrations has ended; see `dwcp-migrate doctor` there, and docs/sizing.md",
    ),
    "no-data-process": Explanation(
        "the destination agent cannot start a data process", "look into the agent's log there"
    ),
    "not-announced": Explanation(
        "no migration was announced at the destination by its hook",
        "install the libvirt hook there and reload libvirtd, see `dwcp-migrate doctor` on that host",
    ),
    "not-its-source": Explanation(
        "another host than this one runs the domain that was announced at the destination",
        "find out with `dwcp-migrate tickets` and virsh which host runs it, and why this one opened the migration",
    ),
    "no-quorum": Explanation(
        "the fleet's state cannot be asked at the destination, and it requires that",
        "see `dwcp-migrate cluster status` there",
    ),
    "observe": Explanation(
        "the destination's agent only observes", "set policy.observe = false there to let it take part"
    ),
    "port": Explanation(
        "the port is outside the destination's migration range",
        "set intercept.port_min and port_max there as in its qemu.conf",
    ),
    "probe-limit": Explanation(
        "the destination takes no more bytes of measurements for now", "measure again in a minute, or fewer bytes"
    ),
    "sessions": Explanation(
        "the destination carries as many migrations as it may",
        "raise policy.sessions_max there, or migrate fewer domains at once",
    ),
    "stopping": Explanation("the destination agent is stopping"),
    "ticket": Explanation("the fleet has not agreed to this migration", "see `dwcp-migrate tickets`"),
    "unknown-request": Explanation("the destination agent does not know this request"),
    "unknown-session": Explanation("the destination agent knows no such session"),
    "version": Explanation("the agents share no protocol version", "upgrade the older of the two agents"),
}
"""Codes of `protocol.control.Refused`: the destination's agent refuses a request."""

UNACCELERATED: Final[Catalogue] = {
    **{code: found for code, found in BY_PEER.items() if code not in OF_WARM_UP},
    "busy": Explanation("the fleet's state has another open ticket for the domain", "dwcp-migrate tickets"),
    "certificate": Explanation(
        "one side does not accept the other's certificate", "dwcp-migrate doctor says which and why"
    ),
    "configured": Explanation(
        "this host's configuration keeps its domain or its peer unaccelerated",
        "show --events names the entry; `accelerate = false` there",
    ),
    "foreign": Explanation("no migration: a service that migrates no guest opened the connection"),
    "left-alone": Explanation(
        "this host's agent ended while it set the migration up; its data process relays it",
        "if nobody stopped it, its log says why it ended",
    ),
    "limit": Explanation("as many migrations run as the fleet's limits allow", "dwcp-migrate cluster limits"),
    "memory": Explanation(
        "one of the two hosts has no memory to spare for a further migration; --events says which",
        "wait until others have ended; dwcp-migrate doctor on both hosts says what is granted",
    ),
    "no-link": Explanation(
        "the destination's agent agreed, and no channel to it came up",
        "dwcp-migrate doctor there; does a firewall inspect or count connections to the link port?",
    ),
    "no-peer": Explanation("the destination is no configured peer", "add it to [[peers]] with all of its addresses"),
    "not-caught": Explanation(
        "its connection did not come to the agent",
        "show --events says where it went; dwcp-migrate doctor compares names and addresses",
    ),
    "observe": Explanation(
        "this agent or the destination's only observes", "set policy.observe = false where it may take part"
    ),
    "postcopy-resume": Explanation("it resumes a postcopy that broke off; libvirt's hook announces no resumption"),
    "step-aside": Explanation("the link outruns this host: QEMU alone is faster"),
    "unreachable": Explanation("the peer's agent did not answer", "dwcp-migrate doctor on both hosts"),
}
"""Codes of `api.schema.Migration.passthrough_reason`: a migration runs unaccelerated."""

_SHOWS: Final = "`dwcp-migrate cluster status` shows it"

BY_CLUSTER_STATE: Final[Catalogue] = {
    "busy": Explanation("the domain has a ticket already", "see `dwcp-migrate tickets`"),
    "certificate": Explanation(
        "the hosts are of different trust domains and no certificate came along",
        "see `dwcp-migrate cluster pbft`",
    ),
    "draining": Explanation("the destination takes no domains now", _SHOWS),
    "expired": Explanation("the ticket expired before it was begun", "begin the migration again"),
    "full": Explanation("a table of the fleet's state is full", _SHOWS),
    "generation": Explanation("the domain has changed hands since", _SHOWS),
    "held": Explanation("somebody else holds it", "see `dwcp-migrate locks`"),
    "limit": Explanation("as many migrations run as may", "see `dwcp-migrate cluster limits`"),
    "link": Explanation("the link has not that much left to reserve", "see `dwcp-migrate cluster limits`"),
    "not-owner": Explanation("the source does not own the domain", _SHOWS),
    "owns-domains": Explanation("the host owns domains still", _SHOWS),
    "same-host": Explanation("source and destination are one host"),
    "stale": Explanation("somebody else changed it meanwhile", "read it again"),
    "stranger": Explanation("this host has no say in it", _SHOWS),
    "unknown-domain": Explanation("the fleet knows no such domain", _SHOWS),
    "unknown-host": Explanation("the fleet knows no such host", _SHOWS),
    "unknown-ticket": Explanation("there is no such open ticket", "see `dwcp-migrate tickets`"),
    "unresolved": Explanation("what libvirt says does not settle it yet", "see `dwcp-migrate tickets`"),
}
"""Codes of `state.fleet.model.TicketOutcome`: the cluster state does not carry a command out."""

BY_PBFT_GROUP: Final[Catalogue] = {
    "begun": Explanation("its destination has begun the migration, and must say how it ended"),
    "domain-busy": Explanation("another ticket for this domain is open"),
    "expired": Explanation("the ticket has expired", "begin the migration again"),
    "full": Explanation("the group knows as many domains as it may"),
    "generation": Explanation("the domain has moved since"),
    "malformed": Explanation("the operation is none"),
    "no-ticket": Explanation("there is no such ticket: it was never issued, was cancelled, or has been used"),
    "not-operator": Explanation("only an operator of the group may assign a domain"),
    "not-destination": Explanation("the ticket is for another destination"),
    "not-owner": Explanation("the domain belongs to another host"),
    "not-party": Explanation("only source and destination may cancel a ticket"),
    "same-host": Explanation("source and destination are one host"),
    "slot-busy": Explanation("another ticket holds this slot of the destination"),
    "unknown-domain": Explanation("nobody has registered this domain"),
}
"""Codes of `consensus.tickets.operations.Refusal`: the PBFT group does not carry an operation out."""


def explain_code(catalogue: Catalogue, code: str) -> Explanation:
    """Put a code into words.

    Args:
        catalogue: the table of the side that refused.
        code: machine-readable reason; one of a newer release, which the table does not have, is its own text.
    """
    return catalogue.get(code, Explanation(code))
