"""Room at the link port: all of it for peers, a part for strangers, a part of that for each of their sources."""

import pytest

from dwcp_migrate.agent.intake.admission import (
    PROVEN_MAX,
    PROVEN_S,
    Admission,
    AdmissionLimits,
    SourceRegistry,
)

LIMITS = AdmissionLimits(total=10, strangers=6, source=2)
PEER = "10.0.0.2"


def strangers(admission: Admission, source: str, count: int) -> int:
    return sum(admission.enter(source, is_peer=False) is not None for _ in range(count))


def test_one_stranger_gets_its_part_and_no_more() -> None:
    admission = Admission(LIMITS)
    assert strangers(admission, "192.0.2.1", 5) == LIMITS.source
    assert strangers(admission, "192.0.2.2", 5) == LIMITS.source


def test_all_strangers_together_leave_room_for_peers() -> None:
    admission = Admission(LIMITS)
    assert sum(strangers(admission, f"192.0.2.{number}", 5) for number in range(20)) == LIMITS.strangers
    peers = [admission.enter(PEER, is_peer=True) for _ in range(LIMITS.total)]
    assert sum(leave is not None for leave in peers) == LIMITS.total - LIMITS.strangers
    assert admission.count == LIMITS.total


def test_who_leaves_makes_room_for_the_next_of_its_kind() -> None:
    admission = Admission(LIMITS)
    leaving = [admission.enter("192.0.2.1", is_peer=False) for _ in range(LIMITS.source)]
    for leave in leaving:
        assert leave is not None
        leave()
    assert admission.count == 0
    assert strangers(admission, "192.0.2.1", 5) == LIMITS.source


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [("2001:db8::1", "2001:db8::ffff:2", True), ("2001:db8::1", "2001:db8:0:1::1", False), ("", "", True)],
)
def test_addresses_of_one_ipv6_site_are_one_source(one: str, other: str, *, together: bool) -> None:
    admission = Admission(LIMITS)
    strangers(admission, one, LIMITS.source)
    assert (strangers(admission, other, 1) == 0) is together


def test_a_source_that_proved_a_certificate_is_a_peer_for_a_while() -> None:
    sources = SourceRegistry(lambda address: address == PEER)
    assert sources.is_peer(PEER, 0.0)
    assert not sources.is_peer("10.9.9.9", 0.0)
    sources.prove("10.9.9.9", 0.0)
    assert sources.is_peer("10.9.9.9", PROVEN_S - 1)
    assert not sources.is_peer("10.9.9.9", PROVEN_S + 1)


def test_only_so_many_of_them_are_remembered() -> None:
    sources = SourceRegistry(lambda _: False)
    for number in range(PROVEN_MAX + 1):
        sources.prove(str(number), 0.0)
    assert not sources.is_peer("0", 1.0)
    assert sources.is_peer("1", 1.0)
    assert sources.is_peer(str(PROVEN_MAX), 1.0)
