"""What a host believes about the members, over restarts and whatever its configuration says."""

import errno
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.agent.pbft import membership_store as module
from dwcp_migrate.agent.pbft.membership_store import FILE, MembershipStore
from dwcp_migrate.config import PbftConfig, PbftMemberConfig
from dwcp_migrate.consensus.pbft.membership_chain import decode_link
from dwcp_migrate.consensus.pbft.model.membership import Member, Membership
from dwcp_migrate.consensus.pbft.model.messages import encode_body
from dwcp_migrate.errors import ConfigError, ConsensusError, EpochError
from dwcp_migrate.protocol.control import SUCCESSOR_BYTES_MAX, Follow
from tests.consensus.epoch_links import link
from tests.consensus.members import identity, membership

FIRST = membership(4, clients=("r0", "r1", "r2", "r3"))
SECOND = membership(5, clients=("r0", "r1", "r2", "r3", "r4"), epoch=1)
THIRD = membership(4, clients=("r0", "r1", "r2", "r3"), epoch=2)


def configured(members: Membership) -> PbftConfig:
    hosts = [PbftMemberConfig(each.name, each.key.hex(), each.operator) for each in members.replicas]
    clients = [
        PbftMemberConfig(each.name, each.key.hex(), each.operator)
        for each in members.clients
        if each.name not in {host.name for host in hosts}
    ]
    return PbftConfig(cluster=members.cluster.hex(), epoch=members.epoch, members=tuple(hosts), clients=tuple(clients))


def test_what_was_verified_counts_after_a_restart_though_the_configuration_is_older(tmp_path: Path) -> None:
    first = MembershipStore(configured(FIRST), tmp_path)
    assert first.newest.membership == FIRST
    assert not (tmp_path / FILE).exists()
    assert first.follow(link(FIRST, SECOND, 10))
    again = MembershipStore(configured(FIRST), tmp_path)
    assert (again.newest.membership, again.newest.since) == (SECOND, 10)
    assert again.note == "epoch 1 counts, which the members of 0 to 0 signed one by one"
    assert MembershipStore(configured(SECOND), tmp_path).note == ""


def test_a_configuration_of_a_later_epoch_counts_and_follows_from_there(tmp_path: Path) -> None:
    MembershipStore(configured(FIRST), tmp_path).follow(link(FIRST, SECOND, 10))
    later = MembershipStore(configured(THIRD), tmp_path)
    assert (later.newest.membership, later.lineage.origin.epoch, later.note) == (THIRD, 2, "")


def test_other_members_for_a_verified_epoch_do_not_count_and_that_is_said(tmp_path: Path) -> None:
    MembershipStore(configured(FIRST), tmp_path).follow(link(FIRST, SECOND, 10))
    edited = MembershipStore(configured(msgspec.structs.replace(FIRST, epoch=1)), tmp_path)
    assert edited.newest.membership == SECOND
    assert "names other members for epoch 1 than those who were verified" in edited.note


def test_what_is_of_another_group_is_not_used(tmp_path: Path) -> None:
    MembershipStore(configured(FIRST), tmp_path).follow(link(FIRST, SECOND, 10))
    with pytest.raises(ConfigError, match="is of the group") as refused:
        MembershipStore(configured(msgspec.structs.replace(FIRST, cluster=bytes(16))), tmp_path)
    assert "empty" in refused.value.hint


def test_what_is_damaged_does_not_let_an_earlier_membership_count_again(tmp_path: Path) -> None:
    MembershipStore(configured(FIRST), tmp_path).follow(link(FIRST, SECOND, 10))
    good = (tmp_path / FILE).read_bytes()
    for bad in (b"", good[:-1], good[:-200] + bytes(200)):
        (tmp_path / FILE).write_bytes(bad)
        with pytest.raises(ConsensusError, match="cannot be used"):
            MembershipStore(configured(FIRST), tmp_path)


def test_a_forged_link_is_neither_used_nor_written(tmp_path: Path) -> None:
    found = MembershipStore(configured(FIRST), tmp_path)
    with pytest.raises(EpochError):
        found.follow(link(FIRST, SECOND, 10, signers=["r0", "r1"]))
    assert (found.newest.membership, (tmp_path / FILE).exists()) == (FIRST, False)


def test_a_full_disk_delays_the_writing_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    found = MembershipStore(configured(FIRST), tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr(module, "write_whole", full)
        assert found.follow(link(FIRST, SECOND, 10))
        found.write()
    assert found.newest.membership == SECOND
    assert not (tmp_path / FILE).exists()
    found.write()
    assert MembershipStore(configured(FIRST), tmp_path).newest.membership == SECOND


def asked(found: MembershipStore, epoch: int) -> tuple[bytes, int]:
    """Everything that it answers, and in how many messages."""
    data, count = b"", 0
    while True:
        request = Follow(cluster=FIRST.cluster, epoch=epoch, offset=len(data))
        answer = found.answer(request, identity("r0").public)
        assert answer.key == identity("r0").public
        if not answer.data:
            return data, count
        data, count = data + answer.data, count + 1
        assert len(data) <= answer.size


def test_a_peer_is_told_who_follows_in_as_many_messages_as_it_takes(tmp_path: Path) -> None:
    room = SUCCESSOR_BYTES_MAX - len(encode_body(link(FIRST, SECOND, 10)))
    for extra, messages in ((0, 1), (room + 1, 2)):
        long = tuple(Member(f"{at:0>250}", identity("r0").public) for at in range(extra // 286 + 1))
        large = msgspec.structs.replace(SECOND, clients=(*SECOND.clients, *long)) if extra else SECOND
        found = MembershipStore(configured(FIRST), tmp_path / str(messages))
        made = link(FIRST, large, 10)
        found.follow(made)
        data, count = asked(found, 0)
        assert (decode_link(data), count) == (made, messages)
        assert asked(found, 1) == (b"", 0)


def test_a_peer_of_another_group_is_told_nothing(tmp_path: Path) -> None:
    found = MembershipStore(configured(FIRST), tmp_path)
    answer = found.answer(Follow(cluster=bytes(16), epoch=0), b"")
    assert (answer.newest, answer.data) == (-1, b"")
