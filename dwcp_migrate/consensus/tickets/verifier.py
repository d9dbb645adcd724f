"""Verifier of a ticket's certificate: the destination's check before it lets a migration in.

Rule: a ticket opens one migration: of the domain, between the two hosts, in the generation that it names, before it
expires, once. The destination works that out from the members' keys; it needs no connection to the group.
"""

from typing import Final, NamedTuple

from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import BROKEN
from dwcp_migrate.consensus.tickets.operations import (
    Ticket,
    decode_result,
)
from dwcp_migrate.errors import ConsensusError

USED_MAX: Final = 4096
"""Used tickets remembered until they expire; past that nothing is let in, rather than something twice."""


class ExpectedTicket(NamedTuple):
    """The migration that a peer wants to bring.

    Attributes:
        source: name that the peer's certificate proves.
        destination: this host.
        generation: of the domain as this host knows it; None if it knows nothing of it.
    """

    domain: str
    source: str
    destination: str
    generation: int | None


class CertificateVerifier:
    """Judges tickets, and remembers those that were used.

    Args:
        used: token and expiry of tickets used before a restart, as `used` gave them.
    """

    def __init__(self, used: dict[int, int] | None = None) -> None:
        self.used: dict[int, int] = dict(used or {})

    def admit(self, certificate: DecisionCertificate, group: Group, expected: ExpectedTicket, now_ms: int) -> Ticket:
        """Let a migration in, once.

        Args:
            certificate: as the source showed it.
            group: members whose keys this host trusts.
            expected: the migration at hand.
            now_ms: this host's wall clock.

        Raises:
            ConsensusError: the certificate does not hold, is no ticket, is for something else, has expired or was used.
        """
        certificate.verify(group.keys, group.epoch, group.cluster)
        try:
            ticket = decode_result(certificate.result)
        except BROKEN as error:
            raise ConsensusError("the certificate is for something else than a ticket") from error
        if not isinstance(ticket, Ticket):
            raise ConsensusError(f"the group answered {ticket}, which permits nothing")
        self._compare(ticket, expected)
        if now_ms >= ticket.expires_ms:
            raise ConsensusError(
                f"ticket {ticket.token} expired {now_ms - ticket.expires_ms} ms ago", hint="compare the hosts' clocks"
            )
        self.used = {token: expires_ms for token, expires_ms in self.used.items() if expires_ms > now_ms}
        if ticket.token in self.used:
            raise ConsensusError(f"ticket {ticket.token} was used already", hint="ask for another one")
        if len(self.used) >= USED_MAX:
            raise ConsensusError(
                f"{USED_MAX} tickets were used and have not expired", hint="give tickets shorter lives"
            )
        self.used[ticket.token] = ticket.expires_ms
        return ticket

    @staticmethod
    def _compare(ticket: Ticket, expected: ExpectedTicket) -> None:
        wanted = {"domain": expected.domain, "source": expected.source, "destination": expected.destination}
        for field, value in wanted.items():
            if getattr(ticket, field) != value:
                raise ConsensusError(f"ticket {ticket.token} is for {field} {getattr(ticket, field)}, not {value}")
        if expected.generation is not None and ticket.generation != expected.generation:
            raise ConsensusError(
                f"ticket {ticket.token} is for generation {ticket.generation}, the domain is in {expected.generation}"
            )
