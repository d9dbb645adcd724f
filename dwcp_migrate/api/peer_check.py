"""Answer of the control API about a peer that was tried.

    GET /v1/check?peer=P&seconds=S&bytes=B&channels=N   PeerCheck   P's name, addresses, agent and hook, tried now, and
                     the link, with at most B bytes in S seconds over N channels (0: as the configuration has them)

The rule: the agent states, it does not judge; `dwcp-migrate check` does.
"""

import msgspec

from dwcp_migrate.api.schema import CertificateExpiry, LinkForecast, PeerView, RedirectStatus
from dwcp_migrate.protocol.control import Examined


class LinkMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement of a link.

    Attributes:
        channels: connections that came up, of `channels_wanted`.
        bytes: that the peer took, in `seconds`.
        bytes_per_s: rate, once the channels had grown.
        held_to_bytes_per_s: rate that the measurement was held to; 0 where it went as fast as it could.
        is_bound_here: this host's agent was busy all the time: the link may carry more; `is_bound_there`: the peer's.
        error: why not all channels came up, or one broke.
    """

    channels: int
    channels_wanted: int
    bytes: int
    seconds: float
    bytes_per_s: float
    held_to_bytes_per_s: float = 0.0
    is_bound_here: bool = False
    is_bound_there: bool = False
    error: str = ""


class PastMigrations(msgspec.Struct, frozen=True, kw_only=True):
    """Accelerated migrations to a peer that completed, as far as this host remembers.

    Attributes:
        raw_bytes: guest memory of all of them, that took `wire_bytes`.
    """

    count: int = 0
    raw_bytes: int = 0
    wire_bytes: int = 0


class PeerCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that was tried.

    Attributes:
        own_name: this host's name, with the software's `own_version` and the agent's `own_state`.
        peer: as it answered.
        resolved: addresses that the peer's name resolves to here, `resolve_error` why it does not.
        redirect: as the kernel has it.
        redirected: of the peer's addresses, those that the redirect catches.
        own_certificates: of this host.
        own_refusal: reason for which this host itself would not accelerate a migration now; a code as in records.
        own_refusal_why: the same for people.
        examined: facts that the peer told of itself; None where it told none, for the reason `examine_error`.
        measured: the link; None where it was not measured, for the reason `measure_error`, with its `measure_hint`.
        running: migrations that ran on either host meanwhile.
        forecast: of the link, from migrations.
        past: migrations to the peer.
        fleet: state of this host in the fleet's shared state, `stopped` where that cannot be asked; empty: there is
            none, or the PBFT group agrees to a migration to this peer.
        fleet_error: why it cannot be asked.
        is_agreement_required: the fleet has to agree to a migration to this peer (`coordination.require`).
        limit_bytes_per_s: what migrations may use of the link; 0 is all of it.
    """

    own_name: str
    own_version: str
    own_state: str
    peer: PeerView
    resolved: list[str] = []
    resolve_error: str = ""
    redirect: RedirectStatus
    redirected: list[str] = []
    own_certificates: list[CertificateExpiry] = []
    own_refusal: str = ""
    own_refusal_why: str = ""
    examined: Examined | None = None
    examine_error: str = ""
    measured: LinkMeasured | None = None
    measure_error: str = ""
    measure_hint: str = ""
    running: int = 0
    forecast: LinkForecast | None = None
    past: PastMigrations = PastMigrations()
    fleet: str = ""
    fleet_error: str = ""
    is_agreement_required: bool = False
    limit_bytes_per_s: float = 0.0
