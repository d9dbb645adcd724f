"""Who follows whom: what a host believes about the members of a group, and by whose keys a certificate counts."""

import contextlib
import random
from itertools import pairwise

import msgspec
import pytest

from dwcp_migrate.consensus.pbft import membership_chain as lineages
from dwcp_migrate.consensus.pbft.membership_chain import (
    GRACE_MS,
    LINK_BYTES_MAX,
    Lineage,
    decode_link,
    decode_written,
    restore_lineage,
)
from dwcp_migrate.consensus.pbft.model.membership import Member, Membership
from dwcp_migrate.consensus.pbft.model.messages import (
    OPERATION_BYTES_MAX,
    STATE_PART_BYTES,
    STATE_PARTS_MAX,
    EpochLink,
    StableProof,
    encode_body,
)
from dwcp_migrate.consensus.pbft.model.quorum import REPLICAS_MAX
from dwcp_migrate.errors import ConsensusError, EpochError
from tests.consensus.epoch_links import ENDED_MS, certificate, link
from tests.consensus.members import member, membership

FIRST = membership(4)
SECOND = membership(5, epoch=1)
THIRD = membership(["r0", "r1", "r2", "r4"], epoch=2)
ONE = link(FIRST, SECOND, 10)
TWO = link(SECOND, THIRD, 20)


@pytest.fixture
def followed() -> Lineage:
    lineage = Lineage(FIRST)
    assert lineage.follow(ONE)
    assert lineage.follow(TWO)
    return lineage


def test_links_lead_from_what_was_configured_to_the_members_of_now(followed: Lineage) -> None:
    assert (followed.newest.membership, followed.newest.since) == (THIRD, 20)
    assert followed.origin.membership == FIRST
    assert followed.names_before == {"r0", "r1", "r2", "r3", "r4", "c0", "c1", "c2", "op"}


def test_a_quorum_of_the_members_is_enough_and_one_less_is_not() -> None:
    with pytest.raises(EpochError, match="no quorum"):
        Lineage(FIRST).follow(link(FIRST, SECOND, 10, signers=["r0", "r1"]))
    assert Lineage(FIRST).follow(link(FIRST, SECOND, 10, signers=["r0", "r1", "r2"]))


def test_it_survives_the_disk_and_is_verified_again(followed: Lineage) -> None:
    written = decode_written(encode_body(followed.written()))
    again = restore_lineage(written)
    assert (again.newest.membership, again.newest.since) == (THIRD, 20)
    assert again.links == followed.links
    forged = msgspec.structs.replace(TWO, proof=msgspec.structs.replace(TWO.proof, signatures={}))
    with pytest.raises(EpochError, match="no quorum"):
        restore_lineage(msgspec.structs.replace(written, links=(ONE, forged)))
    with pytest.raises(EpochError, match="not the memberships"):
        decode_written(encode_body(followed.written())[:-1])


STRANGERS = membership(["s0", "s1", "s2", "s3"], epoch=1)
SWAPPED = {**ONE.proof.signatures, "r2": ONE.proof.signatures["r1"]}


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (msgspec.structs.replace(ONE, proof=msgspec.structs.replace(ONE.proof, signatures=SWAPPED)), "no quorum"),
        (link(membership(["s0", "s1", "s2"]), STRANGERS, 10), "no quorum"),
        (msgspec.structs.replace(ONE, header=link(FIRST, STRANGERS, 10).header), "not what the proof is about"),
        (msgspec.structs.replace(ONE, parts=link(FIRST, STRANGERS, 10).parts), "not what the proof is about"),
        (EpochLink(StableProof(0, 0, ONE.proof.digest), ONE.parts, ONE.header), "no quorum"),
        (link(FIRST, membership(4), 10), "not the next one"),
        (link(FIRST, THIRD, 10), "not the next one"),
        (link(FIRST, SECOND, 10, since=9), "not the epoch's last"),
        (link(FIRST, msgspec.structs.replace(SECOND, replicas=(member("a"), member("a"))), 10), "header is none"),
    ],
    ids=[
        "a signature of somebody else",
        "signed by strangers",
        "the header of another state",
        "the parts of another state",
        "a state that needs no proof",
        "the same epoch again",
        "an epoch left out in the header",
        "a state from within the epoch",
        "two members of one name",
    ],
)
def test_a_forged_link_changes_nothing(forged: EpochLink, why: str) -> None:
    lineage = Lineage(FIRST)
    with pytest.raises(EpochError, match=why):
        lineage.follow(forged)
    assert (lineage.newest.membership, lineage.links) == (FIRST, {})


def test_a_link_of_another_cluster_is_refused() -> None:
    foreign = bytes(16)
    theirs = link(msgspec.structs.replace(FIRST, cluster=foreign), msgspec.structs.replace(SECOND, cluster=foreign), 10)
    with pytest.raises(EpochError, match="no quorum"):
        Lineage(FIRST).follow(theirs)
    renamed = link(FIRST, msgspec.structs.replace(SECOND, cluster=foreign), 10)
    with pytest.raises(EpochError, match="membership of another cluster"):
        Lineage(FIRST).follow(renamed)


def test_a_link_may_not_be_skipped() -> None:
    lineage = Lineage(FIRST)
    with pytest.raises(EpochError, match="link from epoch 1, this host knows 0 to 0"):
        lineage.follow(TWO)
    assert lineage.newest.membership == FIRST


def test_a_replayed_link_changes_nothing_and_an_old_epoch_has_no_second_successor(followed: Lineage) -> None:
    assert not followed.follow(ONE)
    assert not followed.follow(TWO)
    usurped = link(FIRST, membership(["r0", "r1", "r2", "evil"], epoch=1), 10)  # by keys that meant something once
    with pytest.raises(EpochError, match="this host knows 0 to 2"):
        followed.follow(usurped)
    with pytest.raises(EpochError, match="this host knows 0 to 2"):
        followed.follow(link(SECOND, membership(4, epoch=2), 20))
    assert followed.newest.membership == THIRD


def test_no_changed_byte_of_a_link_is_believed() -> None:
    data = encode_body(link(FIRST, SECOND, 10, signers=["r0", "r1", "r2"]))  # a quorum, none to spare
    seed = 20261128
    rng = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201 - shown when it failed
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        lineage = Lineage(FIRST)
        with contextlib.suppress(EpochError):
            assert not lineage.follow(decode_link(bytes(changed))), at
        assert lineage.newest.membership == FIRST, at


def test_past_the_limit_the_oldest_link_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineages, "LINKS_MAX", 3)
    members = [membership(4, epoch=epoch) for epoch in range(5)]
    lineage = Lineage(members[0])
    for old, new in pairwise(members[:4]):
        lineage.follow(link(old, new, 10 * new.epoch))
    assert (lineage.origin.epoch, sorted(lineage.links)) == (0, [0, 1, 2])
    lineage.follow(link(members[3], members[4], 40))
    assert (lineage.origin.epoch, lineage.origin.since, sorted(lineage.links)) == (1, 10, [1, 2, 3])
    assert restore_lineage(lineage.written()).newest.membership == members[4]


def test_the_largest_link_fits_its_limit_and_one_past_it_is_refused() -> None:
    proof = StableProof(2**63 - 1, 2**63 - 1, bytes(32), {f"{at:0>253}": bytes(64) for at in range(REPLICAS_MAX)})
    largest = EpochLink(proof, (bytes(32),) * STATE_PARTS_MAX, bytes(STATE_PART_BYTES))
    assert OPERATION_BYTES_MAX < STATE_PART_BYTES
    data = encode_body(largest)
    assert len(data) <= LINK_BYTES_MAX
    assert decode_link(data) == largest
    with pytest.raises(EpochError, match=f"at most {LINK_BYTES_MAX}"):
        decode_link(bytes(LINK_BYTES_MAX + 1))
    with pytest.raises(EpochError, match="not a link"):
        decode_link(bytes(LINK_BYTES_MAX))


# --- certificates


def judged(lineage: Lineage, members: Membership, sequence: int, now_ms: int) -> Membership:
    shown = certificate(members, sequence)
    group = lineage.judge(shown, now_ms)
    shown.verify(group.keys, group.epoch, group.cluster)
    return group.membership


def test_a_certificate_of_the_members_of_now_counts_at_any_time(followed: Lineage) -> None:
    assert judged(followed, THIRD, 25, ENDED_MS + 1000 * GRACE_MS) == THIRD


def test_one_of_the_epoch_before_counts_for_a_minute(followed: Lineage) -> None:
    assert judged(followed, SECOND, 20, ENDED_MS + GRACE_MS) == SECOND
    with pytest.raises(EpochError, match="certificate of epoch 1, the group is in 2") as refused:
        judged(followed, SECOND, 20, ENDED_MS + GRACE_MS + 1)
    assert "begin the migration again" in refused.value.hint


def test_who_left_may_not_speak_for_later_places_in_the_order(followed: Lineage) -> None:
    with pytest.raises(EpochError, match="at 21, that epoch ended at 20"):
        judged(followed, SECOND, 21, ENDED_MS)


def test_one_of_two_epochs_ago_does_not_count_at_all(followed: Lineage) -> None:
    with pytest.raises(EpochError, match="certificate of epoch 0, the group is in 2"):
        judged(followed, FIRST, 5, ENDED_MS)


def test_one_of_an_epoch_that_is_not_proven_here_does_not_count() -> None:
    with pytest.raises(EpochError, match="could not verify what follows"):
        judged(Lineage(FIRST), SECOND, 15, ENDED_MS)


def test_one_of_an_epoch_before_the_first_that_is_known_does_not_count() -> None:
    with pytest.raises(EpochError, match="certificate of epoch 1, the group is in 2"):
        judged(Lineage(THIRD), SECOND, 15, ENDED_MS)


def test_a_key_that_was_replaced_does_not_count(followed: Lineage) -> None:
    other = tuple(Member(each.name, member(f"new {each.name}").key) for each in THIRD.replicas)
    shown = certificate(THIRD, 25)
    replaced = msgspec.structs.replace(THIRD, epoch=3, replicas=other)
    followed.follow(link(THIRD, replaced, 30))
    group = followed.judge(msgspec.structs.replace(shown, epoch=3, sequence=35), ENDED_MS)
    with pytest.raises(ConsensusError, match="wrong signature"):
        msgspec.structs.replace(shown, epoch=3, sequence=35).verify(group.keys, group.epoch, group.cluster)
