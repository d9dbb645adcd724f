"""Decision certificates: what a third party believes, and all that it does not."""

import msgspec
import pytest

from dwcp_migrate.consensus.pbft import certificate as certificates
from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate, sign_decision
from dwcp_migrate.consensus.pbft.model import keys
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.errors import ConsensusError
from tests.consensus.members import CLUSTER, identity, membership

GROUP = Group(membership(4))
EMPTY = DecisionCertificate(CLUSTER, 0, 9, "c0", 3, b"result", {})


def signed(*names: str, decision: DecisionCertificate = EMPTY) -> DecisionCertificate:
    signatures = {name: sign_decision(identity(name), GROUP, decision) for name in names}
    return msgspec.structs.replace(decision, signatures=signatures)


GOOD = signed("r0", "r1", "r2")


def verify(certificate: DecisionCertificate) -> None:
    certificate.verify(GROUP.keys, 0, CLUSTER)


def test_a_quorum_convinces_and_so_does_more() -> None:
    verify(GOOD)
    verify(signed("r0", "r1", "r2", "r3"))
    verify(certificates.decode_certificate(certificates.encode_certificate(GOOD)))


@pytest.mark.parametrize("field", ["epoch", "sequence", "client", "number", "result", "cluster"])
def test_nothing_can_be_changed(field: str) -> None:
    changes = {"epoch": 1, "sequence": 8, "client": "c1", "number": 4, "result": b"other", "cluster": bytes(16)}
    with pytest.raises(ConsensusError):
        verify(msgspec.structs.replace(GOOD, **{field: changes[field]}))


def test_fewer_than_a_quorum_do_not_convince() -> None:
    with pytest.raises(ConsensusError, match="2 signatures"):
        verify(signed("r0", "r1"))


def test_one_signature_three_times_is_one() -> None:
    one = GOOD.signatures["r0"]
    with pytest.raises(ConsensusError, match="wrong signature"):
        verify(msgspec.structs.replace(GOOD, signatures={"r0": one, "r1": one, "r2": one}))


def test_strangers_do_not_count_even_beside_a_quorum() -> None:
    with pytest.raises(ConsensusError, match="strangers"):
        verify(signed("r0", "r1", "r2", "c0"))


def test_a_signature_for_another_purpose_is_none() -> None:
    other = identity("r0").sign(keys.CHECKPOINT, CLUSTER, certificates.statement(GOOD))
    with pytest.raises(ConsensusError, match="wrong signature"):
        verify(msgspec.structs.replace(GOOD, signatures={**GOOD.signatures, "r0": other}))


def test_another_cluster_of_the_same_hosts_is_another_cluster() -> None:
    with pytest.raises(ConsensusError, match="epoch"):
        GOOD.verify(GROUP.keys, 0, bytes(16))


def test_bytes_past_the_limit_or_of_something_else_are_refused() -> None:
    for data in (
        b"",
        b"\xc1",
        certificates.encode_certificate(GOOD)[:-1],
        bytes(certificates.CERTIFICATE_BYTES_MAX + 1),
    ):
        with pytest.raises(ConsensusError):
            certificates.decode_certificate(data)
