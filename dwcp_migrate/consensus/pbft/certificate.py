"""A decision that its holder can show to anyone: signed by a quorum, verified with the members' keys and nothing else.

Rule: a replica signs only what it executed. One who holds `quorum` signatures over the same statement knows that the
group decided it at this place in its order, and that no other result exists there. It takes no connection to the
group and no trust in who hands the certificate over: the source of a migration shows it to the destination.
"""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.model.keys import DECISION, SigningIdentity, compute_digest, is_signed
from dwcp_migrate.consensus.pbft.model.membership import Group, Name
from dwcp_migrate.consensus.pbft.model.messages import BROKEN, RESULT_BYTES_MAX, Counter, Signature, encode_body
from dwcp_migrate.consensus.pbft.model.quorum import REPLICAS_MAX, quorum_of
from dwcp_migrate.errors import ConsensusError
from dwcp_migrate.units import KIB

CERTIFICATE_BYTES_MAX: Final = RESULT_BYTES_MAX + 16 * KIB


class DecisionCertificate(msgspec.Struct, frozen=True, array_like=True):
    """A result with the signatures of a quorum.

    Attributes:
        cluster: the group's random name.
        epoch: membership whose keys verify it.
        sequence: place in the group's order.
        client: who asked.
        number: of the client's request.
        result: what the application answered.
        signatures: by replica.
    """

    cluster: bytes
    epoch: Counter
    sequence: Counter
    client: Name
    number: Counter
    result: Annotated[bytes, Meta(max_length=RESULT_BYTES_MAX)]
    signatures: Annotated[dict[Name, Signature], Meta(max_length=REPLICAS_MAX)]

    def verify(self, keys: Mapping[str, bytes], epoch: int, cluster: bytes) -> None:
        """Hold the certificate against the members of an epoch.

        Args:
            keys: public key of each replica of the epoch, all of them: their count decides the quorum.
            epoch: that the verifier trusts these keys for.
            cluster: that the verifier belongs to.

        Raises:
            ConsensusError: another cluster or epoch, too few signatures of members, or a wrong one.
        """
        if self.cluster != cluster or self.epoch != epoch:
            raise ConsensusError(
                f"certificate of epoch {self.epoch}, this host knows epoch {epoch}", hint="update the member list"
            )
        needed = quorum_of(len(keys)).quorum
        strangers = self.signatures.keys() - keys.keys()
        if strangers or len(self.signatures) < needed:
            raise ConsensusError(
                f"certificate with {len(self.signatures)} signatures, {len(strangers)} of strangers; {needed} needed"
            )
        data = statement(self)
        for name, signature in self.signatures.items():
            if not is_signed(keys[name], DECISION, cluster, data, signature):
                raise ConsensusError(f"certificate with a wrong signature of {name}")


_decoder = msgspec.msgpack.Decoder(DecisionCertificate)


def encode_certificate(certificate: DecisionCertificate) -> bytes:
    """Serialise a certificate."""
    return encode_body(certificate)


def decode_certificate(data: bytes) -> DecisionCertificate:
    """Read a certificate; it still has to be verified.

    Raises:
        ConsensusError: it is none, or past a limit.
    """
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise ConsensusError(f"certificate of {len(data)} bytes, at most {CERTIFICATE_BYTES_MAX}")
    try:
        return _decoder.decode(data)
    except BROKEN as error:
        raise ConsensusError(f"not a certificate: {error}") from error


def statement(decision: DecisionCertificate) -> bytes:
    """Lay out the bytes that a decision's signatures cover: everything but the signatures."""
    numbers = decision.epoch, decision.sequence, decision.number
    return (
        b"".join(number.to_bytes(8, "big") for number in numbers)
        + compute_digest(decision.result)
        + decision.client.encode()
    )


def sign_decision(identity: SigningIdentity, group: Group, decision: DecisionCertificate) -> bytes:
    """Sign a result that this replica executed.

    Args:
        identity: this replica's key.
        group: members of the epoch that signs.
        decision: the certificate to be, without signatures.

    Returns:
        The signature, `SIGNATURE_BYTES` long.
    """
    return identity.sign(DECISION, group.cluster, statement(decision))
