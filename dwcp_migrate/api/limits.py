"""Answers of the control API about the limits of links.

GET  /v1/limits                                LinkLimits   of every peer, as configured, commanded and in force
POST /v1/limit?peer=P&bytes_per_s=R&for_s=S    LinkLimit    migrations to P take R of the link at most, together, for
                                               S seconds (0: until it is taken off); R = 0 takes it off
"""

from typing import Final

import msgspec

from dwcp_migrate.units import KIB

LIMIT_BYTES_PER_S_MIN: Final = 256.0 * KIB
"""Lowest limit: below it a migration's control messages would be so late that libvirt could time out."""


class LinkLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The limit of the link to a peer, in bytes a second on the wire; 0 is none.

    Attributes:
        commanded_bytes_per_s: by `dwcp-migrate limit`; it outlives the agent's restart and the host's.
        until: when that ends, seconds since the epoch; 0 is when it is taken off.
        configured_bytes_per_s: the lower of the peer's own and `bandwidth.link_bytes_per_s_max`.
        bytes_per_s: in force, the lowest of all.
    """

    peer: str
    commanded_bytes_per_s: float = 0.0
    until: float = 0.0
    configured_bytes_per_s: float = 0.0
    bytes_per_s: float = 0.0


class LinkLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of all peers."""

    limits: list[LinkLimit]
