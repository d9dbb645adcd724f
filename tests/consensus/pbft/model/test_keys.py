"""Signatures and authenticators: each is bound to its purpose, its cluster and its two parties."""

import pytest

from dwcp_migrate.consensus.pbft.model import keys
from tests.consensus.members import CLUSTER, identity


def test_a_signature_means_nothing_elsewhere() -> None:
    a, b = identity("a"), identity("b")
    signature = a.sign(keys.CHECKPOINT, CLUSTER, b"data")
    assert keys.is_signed(a.public, keys.CHECKPOINT, CLUSTER, b"data", signature)
    assert not keys.is_signed(a.public, keys.DECISION, CLUSTER, b"data", signature)
    assert not keys.is_signed(a.public, keys.CHECKPOINT, bytes(16), b"data", signature)
    assert not keys.is_signed(b.public, keys.CHECKPOINT, CLUSTER, b"data", signature)
    assert not keys.is_signed(a.public, keys.CHECKPOINT, CLUSTER, b"Data", signature)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_of_another_length_is_none(size: int) -> None:
    assert not keys.is_signed(identity("a").public, keys.REQUEST, CLUSTER, b"", bytes(size))


def test_client_and_replica_share_a_key_and_a_third_does_not() -> None:
    client, replica, third = identity("c"), identity("r"), identity("x")
    shared = client.shared_key(replica.public)
    assert shared == replica.shared_key(client.public)
    assert shared != third.shared_key(client.public)
    tag = keys.compute_mac(shared, CLUSTER, b"body")
    assert len(tag) == keys.MAC_BYTES
    assert keys.is_authentic(shared, CLUSTER, b"body", tag)
    assert not keys.is_authentic(shared, CLUSTER, b"Body", tag)
    assert not keys.is_authentic(shared, bytes(16), b"body", tag)
    assert not keys.is_authentic(shared, CLUSTER, b"body", tag[:-1])
    assert not keys.is_authentic(shared, CLUSTER, b"body", b"")


def test_what_is_no_point_of_the_curve_is_no_key() -> None:
    with pytest.raises(ValueError, match="not an Ed25519"):
        identity("a").shared_key(b"\xff" * 32)


def test_forgetting_what_was_verified_changes_no_answer() -> None:
    a = identity("a")
    signature = a.sign(keys.REQUEST, CLUSTER, b"data")
    assert keys.is_signed(a.public, keys.REQUEST, CLUSTER, b"data", signature)
    keys.forget_verified()
    assert keys.is_signed(a.public, keys.REQUEST, CLUSTER, b"data", signature)
