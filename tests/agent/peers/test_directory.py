"""The directory of peers: names known by their addresses, this host left out, and why a peer has no address."""

import socket

from dwcp_migrate.agent.peers.directory import PeerDirectory, host_names
from dwcp_migrate.config import PeerConfig

HV2 = PeerConfig("hv2.example", ["HV2-mig.example", "10.0.0.2"])
HV3 = PeerConfig("hv3.example", ["2001:DB8::3"])


def nobody(_: str) -> bool:
    return False


def test_names_are_known_by_what_they_resolve_to() -> None:
    resolved = {"hv2-mig.example": ["10.0.0.2", "10.1.0.2", "2001:db8::2"]}
    directory = PeerDirectory([HV2, HV3], "hv1", nobody, resolved)
    assert directory.all()[0].addresses == ["10.0.0.2", "10.1.0.2", "2001:db8::2"]
    for address in ("10.1.0.2", "2001:db8:0::2", "::ffff:10.0.0.2"):
        found = directory.by_address(address)
        assert found is not None
        assert found.name == "hv2.example"
    assert directory.redirected_of([socket.AF_INET]) == {"10.0.0.2", "10.1.0.2"}
    assert directory.redirected_of([socket.AF_INET6]) == {"2001:db8::2", "2001:db8::3"}
    assert directory.without_address == {}


def test_a_peer_whose_name_is_not_known_stays_and_is_not_redirected() -> None:
    directory = PeerDirectory([PeerConfig("hv2.example", ["hv2-mig.example"]), HV3], "hv1", nobody)
    assert [peer.name for peer in directory.all()] == ["hv2.example", "hv3.example"]
    assert directory.all()[0].addresses == ["hv2-mig.example"]
    assert "hv2-mig.example" in directory.without_address["hv2.example"]
    assert [address for address, _ in directory.redirected()] == ["2001:db8::3"]


def test_an_address_that_two_names_lead_to_belongs_to_the_first() -> None:
    peers = [PeerConfig("a", ["a.example"]), PeerConfig("b", ["b.example"])]
    directory = PeerDirectory(peers, "hv1", nobody, {"a.example": ["10.0.0.9"], "b.example": ["10.0.0.9"]})
    found = directory.by_address("10.0.0.9")
    assert found is not None
    assert found.name == "a"
    assert directory.without_address == {"b": "10.0.0.9 belongs to another peer too"}


def test_this_host_is_no_peer_of_its_own_by_name_in_any_case_or_by_address() -> None:
    assert PeerDirectory([HV2, HV3], "HV2.Example", nobody).all() == (PeerConfig("hv3.example", ["2001:db8::3"]),)
    own = PeerDirectory([HV2, HV3], "hv1", lambda address: address == "10.1.0.2", {"hv2-mig.example": ["10.1.0.2"]})
    assert [peer.name for peer in own.all()] == ["hv3.example"]


def test_only_names_are_resolved() -> None:
    assert host_names([HV2, HV3]) == {"hv2-mig.example"}
