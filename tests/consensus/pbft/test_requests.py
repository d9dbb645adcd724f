"""Requests before they are decided: who is believed, who has to sign, and how much is held for whom."""

import msgspec
import pytest

from dwcp_migrate.consensus import Membership, Options, PbftClient, PbftReplica
from dwcp_migrate.consensus.pbft import requests as limits
from dwcp_migrate.consensus.pbft.model.client_table import CLIENT_WINDOW, RequestOutcome
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import Message, PrePrepare, Request, RequestBody, encode_body
from dwcp_migrate.errors import ConsensusError
from tests.consensus.members import CLUSTER, Chain, identity, membership


def replica(name: str = "r0", members: Membership | None = None) -> PbftReplica:
    made = PbftReplica(name, identity(name), members or membership(4), Chain(), Options(pipeline=1))
    made.set_clock(1000.0, 0.0)
    return made


def client(name: str = "c0") -> PbftClient:
    return PbftClient(name, identity(name), membership(4), first_number=1)


def request(of: PbftClient, operation: bytes = b"x") -> Request:
    of.submit(operation, 0.0)
    ((_, made),) = of.ready()[0]
    return made


def signed(name: str, number: int, epoch: int = 0, by: str = "") -> Request:
    body = encode_body(RequestBody(name, epoch, number, b"x"))
    return Request(body, b"", identity(by or name).sign(b"dwcp-request", CLUSTER, body))


def sent(of: PbftReplica) -> list[tuple[str | None, Message]]:
    return of.ready().messages


def proposals(of: PbftReplica) -> int:
    return sum(isinstance(message, PrePrepare) for _, message in sent(of))


def test_the_primary_proposes_an_authentic_request() -> None:
    primary = replica()
    primary.step("c0", request(client()), 0.0)
    assert proposals(primary) == 1


@pytest.mark.parametrize(
    "bad",
    [
        Request(b"\xc1"),
        signed("nobody", 1),
        signed("c0", 1, by="c1"),
        Request(signed("c0", 1).body),
        Request(signed("c0", 1).body, bytes(64)),
    ],
    ids=["no request", "no member", "signed by another", "not authenticated", "wrong authenticators"],
)
def test_nothing_else_is_proposed(bad: Request) -> None:
    primary = replica()
    primary.step("c0", bad, 0.0)
    assert proposals(primary) == 0
    assert primary.counters.refused == 1


def test_a_backup_passes_a_first_request_on_and_expects_nothing() -> None:
    backup = replica("r1")
    first = request(client())
    backup.step("c0", first, 0.0)
    assert sent(backup) == [("r0", first)]
    backup.tick(100.0)
    assert backup.view == 0


def test_a_backup_suspects_the_primary_over_a_signed_request_only() -> None:
    backup = replica("r1")
    backup.step("c0", signed("c0", 1), 0.0)
    backup.tick(Options().request_timeout_s)
    assert backup.view == 0
    backup.tick(Options().request_timeout_s + 0.01)
    assert backup.view == 1


def test_what_another_replica_passes_on_is_not_passed_on_again() -> None:
    backup = replica("r1")
    backup.step("r2", signed("c0", 1), 0.0)
    assert sent(backup) == []


def test_a_client_whose_authenticator_was_wrong_must_sign_for_a_while() -> None:
    primary, asking = replica(), client()
    good = request(asking)
    wrong = msgspec.structs.replace(good, macs=bytes(len(good.macs)))
    primary.step("c0", wrong, 0.0)
    primary.step("c0", good, 1.0)
    assert proposals(primary) == 0
    primary.step("c0", signed("c0", 2), 2.0)
    assert proposals(primary) == 1
    later = replica()
    later.step("c0", wrong, 0.0)
    later.step("c0", good, limits.SUSPECT_S + 0.1)
    assert proposals(later) == 1


def test_a_request_of_another_epoch_needs_a_signature() -> None:
    primary = replica()
    other = PbftClient("c0", identity("c0"), membership(4, epoch=1), first_number=1)
    primary.step("c0", request(other), 0.0)
    assert proposals(primary) == 0
    primary.step("c0", signed("c0", 1, epoch=1), 0.0)
    assert proposals(primary) == 1


def test_a_request_of_two_epochs_ago_is_not_executed_again() -> None:
    """Its client was removed, and forgotten, and has come back; a member kept what it signed."""
    primary = replica(members=membership(4, epoch=2))
    primary.core.known[1] = Group(membership(4, clients=("c1",), epoch=1))
    primary.step("r3", signed("c0", 1, epoch=0), 0.0)
    primary.step("r3", signed("c0", 1, epoch=1), 0.0)
    assert (proposals(primary), primary.counters.refused) == (0, 2)
    primary.step("r3", signed("c1", 1, epoch=1), 0.0)
    assert proposals(primary) == 1
    primary.step("r3", signed("c1", 2, epoch=0), 0.0)
    assert (proposals(primary), primary.counters.refused) == (0, 3)


def change_members(of: PbftReplica, epoch: int) -> None:
    group = Group(membership(4, epoch=epoch))
    of.core.known[epoch] = of.core.group = group
    for told in of.core.on_epoch:
        told()


def test_a_request_that_waits_through_two_changes_of_members_is_proposed_no_more() -> None:
    """The others would refuse its batch, and depose one primary after the other, for ever."""
    backup = replica("r1")
    backup.step("c0", signed("c0", 1), 0.0)
    change_members(backup, 1)
    assert list(backup._requests.waiting) == [("c0", 1)]
    change_members(backup, 2)
    assert list(backup._requests.waiting) == []
    assert not backup._requests.overdue(0.0)


def test_a_request_that_is_asked_for_again_in_a_later_epoch_takes_the_place_of_the_old_one() -> None:
    backup = replica("r1")
    backup.step("c0", signed("c0", 1), 0.0)
    change_members(backup, 1)
    again = signed("c0", 1, epoch=1)
    backup.step("c0", again, 1.0)
    assert [request for _, request in backup._requests.waiting.values()] == [again]
    backup.step("r2", signed("c0", 1), 2.0)  # somebody still forwards the old one
    change_members(backup, 2)
    assert [request for _, request in backup._requests.waiting.values()] == [again]


def test_what_a_client_has_under_way_is_asked_for_in_the_epoch_of_now() -> None:
    asking = client()
    asking.submit(b"x", 0.0)
    asking.ready()
    asking.tick(100.0)  # its next attempt lies some time ahead
    asking.ready()
    asking.update(membership(4, epoch=2))
    asking.tick(100.0)
    ((_, again),) = asking.ready()[0]
    primary = replica(members=membership(4, epoch=2))
    primary.step("c0", again, 1.0)
    assert proposals(primary) == 1


def test_nobody_waits_for_a_request_that_can_never_be_executed() -> None:
    """Its number fell out of the window while it waited: that is no reason to change the view."""
    backup = replica("r1")
    backup.step("c0", signed("c0", 1), 0.0)
    backup.core.clients.record("c0", 2 + CLIENT_WINDOW, RequestOutcome(1, b""))
    backup.tick(10.0)
    assert (backup.view, len(backup._requests.waiting)) == (0, 0)


def test_a_repeated_request_is_queued_once() -> None:
    primary, asking = replica(), client()
    first = request(asking)
    for _ in range(3):
        primary.step("c0", first, 0.0)
    assert proposals(primary) == 1


def test_one_client_is_held_so_many_requests_and_another_still_has_room() -> None:
    backup = replica("r1")
    for number in range(limits.CLIENT_HELD_MAX + 1):
        backup.step("r2", signed("c0", number), 0.0)
    assert backup.counters.refused == 1
    backup.step("r2", signed("c1", 1), 0.0)
    assert backup.counters.refused == 1


def test_all_clients_together_are_held_so_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HELD_MAX", 3)
    backup = replica("r1")
    for number in range(4):
        backup.step("r2", signed(f"c{number % 2}", number), 0.0)
    assert backup.counters.refused == 1


def test_a_client_asks_no_further_ahead_than_replicas_remember() -> None:
    asking = client()
    for _ in range(CLIENT_WINDOW):
        assert asking.has_room
        asking.submit(b"", 0.0)
    assert not asking.has_room
    with pytest.raises(ConsensusError, match="under way"):
        asking.submit(b"", 0.0)


def test_held_requests_are_counted_by_client() -> None:
    held = limits.HeldRequests[int]()
    held.put(("a", 1), 1)
    held.put(("a", 1), 2)
    held.put(("b", 1), 3)
    assert (held.of("a"), held.of("b"), held.of("c")) == (1, 1, 0)
    held.drop(("a", 1))
    held.drop(("a", 1))
    assert held.of("a") == 0
    held.drop_all()
    assert held.of("b") == 0
    assert not held
