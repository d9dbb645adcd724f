"""A change of members as an operator asks for it: what comes of it, and what is refused before anybody is asked."""

import msgspec
import pytest

from dwcp_migrate.agent.pbft.membership_change import NAMES_MAX, Change, Named, following, seated
from dwcp_migrate.consensus.pbft.model.membership import CLIENTS_MAX, Group, Member, Membership
from dwcp_migrate.consensus.pbft.model.quorum import REPLICAS_MAX
from dwcp_migrate.errors import ConfigError
from tests.consensus.members import CLUSTER, identity, member

SELF = identity("r0")


def group_of(count: int, *clients: str) -> Group:
    replicas = tuple(member(f"r{at}", operator=at == 0) for at in range(count))
    return Group(Membership(CLUSTER, 3, replicas, (*replicas, *(member(name) for name in clients))))


def named(name: str, key: str | None = None) -> Named:
    return Named(name=name, key=identity(key or name).public.hex())


def change(group: Group, **fields: tuple[object, ...] | bool) -> Membership:
    return following(group, msgspec.convert(fields, Change), SELF)


def names(members: tuple[Member, ...]) -> list[str]:
    return [each.name for each in members]


def test_a_host_is_added_and_may_ask_too() -> None:
    found = change(group_of(4), add=(named("r4"),))
    assert (found.epoch, names(found.replicas)) == (4, ["r0", "r1", "r2", "r3", "r4"])
    assert names(found.clients) == ["r0", "r1", "r2", "r3", "r4"]
    assert [each.operator for each in found.replicas] == [True, False, False, False, False]


def test_a_member_is_removed_altogether() -> None:
    found = change(group_of(5), remove=("r4",))
    assert names(found.replicas) == names(found.clients) == ["r0", "r1", "r2", "r3"]


def test_a_dead_member_is_replaced_in_one_step() -> None:
    found = change(group_of(4), add=(named("r9"),), remove=("r3",))
    assert names(found.replicas) == ["r0", "r1", "r2", "r9"]
    assert names(seated(group_of(4), found)) == ["r9"]


def test_a_member_that_lost_its_disk_comes_back_in_its_place_under_another_key() -> None:
    found = change(group_of(4), add=(named("r2", "new"),))
    assert names(found.replicas) == ["r0", "r1", "r2", "r3"]
    assert found.replicas[2].key == found.clients[2].key == identity("new").public
    assert names(seated(group_of(4), found)) == ["r2"]


def test_a_client_gets_a_vote_by_its_name_alone_and_a_member_becomes_a_client() -> None:
    grown = change(group_of(4, "c0"), add=(Named(name="c0"),))
    assert grown.replicas[4] == member("c0")
    shrunk = change(group_of(5), clients=(Named(name="r4"),))
    assert (names(shrunk.replicas), names(shrunk.clients)) == (
        names(group_of(4).membership.replicas),
        [*group_of(5).clients],
    )


def test_another_operator_is_named() -> None:
    found = change(group_of(4), operators=("r1",))
    assert names(tuple(each for each in found.clients if each.operator)) == ["r0", "r1"]
    assert found.replicas[1].operator


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "names no host"),
        ({"add": (named("r4"),), "remove": ("r4",)}, "names a host twice"),
        ({"remove": ("nobody",)}, "nobody has no part"),
        ({"operators": ("nobody",)}, "nobody has no part"),
        ({"add": (Named(name="r4"),)}, "r4 is not known to the group"),
        ({"add": (Named(name="r4", key="00" * 32),)}, "not an Ed25519 public key"),
        ({"add": (Named(name="r1"),)}, "changes nothing"),
        ({"remove": ("r0",)}, "no operator would be left"),
        ({"remove": ("r1", "r2"), "add": (named("r8"), named("r9"))}, "2 of 4 members would stay, and 3 must decide"),
        ({"add": tuple(named(f"n{at}") for at in range(3)), "unseen": True}, "4 of 7 members would stay, and 5"),
    ],
)
def test_a_change_that_breaks_a_rule_is_refused(fields: dict[str, tuple[object, ...]], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        change(group_of(4), **fields)


def test_a_group_may_outgrow_those_who_stay_if_all_stay_and_those_who_come_were_seen() -> None:
    three = tuple(named(f"n{at}") for at in range(3))
    assert len(change(group_of(4), add=three).replicas) == 7
    with pytest.raises(ConfigError, match="3 of 6 members would stay"):
        change(group_of(4), add=three, remove=("r3",))
    assert len(change(group_of(1), add=(named("r1"),)).replicas) == 2


def test_the_number_of_members_has_its_limit() -> None:
    most = group_of(REPLICAS_MAX - 1)
    assert len(change(most, add=(named("last"),)).replicas) == REPLICAS_MAX
    with pytest.raises(ConfigError, match="32 members"):
        change(group_of(REPLICAS_MAX), add=(named("last"),))
    with pytest.raises(ConfigError, match="0 members"):
        change(group_of(1, "c0"), clients=(Named(name="r0"),))


def test_those_who_ask_have_theirs() -> None:
    most = group_of(4, *(f"c{at}" for at in range(CLIENTS_MAX - 5)))
    found = change(most, clients=(Named(name="last", key=most.clients["c0"].key.hex()),))
    assert len(found.clients) == CLIENTS_MAX
    full = Group(msgspec.structs.replace(found, epoch=3))
    with pytest.raises(ConfigError, match=f"at most {CLIENTS_MAX}"):
        change(full, clients=(named("more"),))


def test_a_membership_that_no_request_carries_is_refused() -> None:
    many = group_of(4, *(f"{at:0>250}" for at in range(200)))
    with pytest.raises(ConfigError, match="membership of"):
        change(many, clients=(named("more"),))


def test_a_change_names_no_more_hosts_than_the_limit() -> None:
    msgspec.convert({"remove": [f"r{at}" for at in range(NAMES_MAX)]}, Change)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"remove": [f"r{at}" for at in range(NAMES_MAX + 1)]}, Change)
