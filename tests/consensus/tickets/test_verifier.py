"""What lets a migration in, and every way in which a ticket does not fit."""

from typing import Any

import msgspec
import pytest

from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate, sign_decision
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import encode_body
from dwcp_migrate.consensus.tickets import verifier
from dwcp_migrate.consensus.tickets.operations import (
    Refusal,
    Result,
    Ticket,
)
from dwcp_migrate.consensus.tickets.verifier import CertificateVerifier, ExpectedTicket
from dwcp_migrate.errors import ConsensusError
from tests.consensus.members import CLUSTER, identity, membership

GROUP = Group(membership(4))
DOMAIN = "00000000-0000-4000-8000-000000000001"
TICKET = Ticket(DOMAIN, "a", "b", 0, 3, 17, 5000)
EXPECTED = ExpectedTicket(DOMAIN, "a", "b", 3)


def certificate(result: Result | bytes, signers: tuple[str, ...] = ("r0", "r1", "r2")) -> DecisionCertificate:
    data = result if isinstance(result, bytes) else encode_body(result)
    empty = DecisionCertificate(CLUSTER, 0, 9, "a", 1, data, {})
    signatures = {name: sign_decision(identity(name), GROUP, empty) for name in signers}
    return msgspec.structs.replace(empty, signatures=signatures)


def test_a_good_ticket_lets_one_migration_in() -> None:
    held = CertificateVerifier()
    assert held.admit(certificate(TICKET), GROUP, EXPECTED, 4999) == TICKET
    with pytest.raises(ConsensusError, match="used already"):
        held.admit(certificate(TICKET), GROUP, EXPECTED, 4999)


def test_a_used_ticket_is_remembered_over_a_restart_until_it_expires() -> None:
    held = CertificateVerifier()
    held.admit(certificate(TICKET), GROUP, EXPECTED, 4000)
    again = CertificateVerifier(held.used)
    with pytest.raises(ConsensusError, match="used already"):
        again.admit(certificate(TICKET), GROUP, EXPECTED, 4999)
    later = msgspec.structs.replace(TICKET, token=18, expires_ms=9000)
    again.admit(certificate(later), GROUP, EXPECTED, 5000)
    assert again.used == {18: 9000}


def test_a_host_that_does_not_know_the_domain_takes_any_generation() -> None:
    assert CertificateVerifier().admit(certificate(TICKET), GROUP, EXPECTED._replace(generation=None), 0) == TICKET


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"domain": DOMAIN[:-1] + "2"}, "for domain"),
        ({"source": "c"}, "for source"),
        ({"destination": "c"}, "for destination"),
        ({"generation": 4}, "generation"),
    ],
)
def test_a_ticket_for_something_else_lets_nothing_in(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ConsensusError, match=match):
        CertificateVerifier().admit(certificate(TICKET), GROUP, EXPECTED._replace(**change), 0)


def test_an_expired_ticket_lets_nothing_in() -> None:
    with pytest.raises(ConsensusError, match="expired 0 ms ago"):
        CertificateVerifier().admit(certificate(TICKET), GROUP, EXPECTED, 5000)


def test_a_forged_ticket_lets_nothing_in() -> None:
    forged = msgspec.structs.replace(
        certificate(TICKET), result=encode_body(msgspec.structs.replace(TICKET, source="x"))
    )
    with pytest.raises(ConsensusError, match="wrong signature"):
        CertificateVerifier().admit(forged, GROUP, EXPECTED._replace(source="x"), 0)
    with pytest.raises(ConsensusError, match="2 signatures"):
        CertificateVerifier().admit(certificate(TICKET, ("r0", "r1")), GROUP, EXPECTED, 0)


@pytest.mark.parametrize("result", [Refusal("expired", 17), b"\xc1", b"", b"\x92\xa7refusal\xa1\xff"])
def test_a_certificate_for_something_else_lets_nothing_in(result: Result | bytes) -> None:
    with pytest.raises(ConsensusError):
        CertificateVerifier().admit(certificate(result), GROUP, EXPECTED, 0)


def test_a_failed_attempt_does_not_use_the_ticket_up() -> None:
    held = CertificateVerifier()
    with pytest.raises(ConsensusError):
        held.admit(certificate(TICKET), GROUP, EXPECTED._replace(source="x"), 0)
    assert held.admit(certificate(TICKET), GROUP, EXPECTED, 0) == TICKET


def test_memory_for_used_tickets_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "USED_MAX", 2)
    held = CertificateVerifier({1: 9000})
    held.admit(certificate(TICKET), GROUP, EXPECTED, 0)
    third = msgspec.structs.replace(TICKET, token=18)
    with pytest.raises(ConsensusError, match="have not expired"):
        held.admit(certificate(third), GROUP, EXPECTED, 0)
