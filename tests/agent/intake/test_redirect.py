"""The redirect as the agent holds it: whom it exempts, which families, what it says of itself."""

import socket

import pytest

from dwcp_migrate.agent.intake.redirect import ROOT_MARK, Redirection, own_exemption
from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.config import InterceptConfig, PeerConfig
from dwcp_migrate.hypervisor.base import Cgroup, Exemption
from dwcp_migrate.hypervisor.fake import FakeInterceptor

BOTH = frozenset([socket.AF_INET, socket.AF_INET6])
DIRECTORY = PeerDirectory([PeerConfig("hv2", ["10.0.0.2", "fd00::2"])], "hv1", lambda _: False)
CONFIG = InterceptConfig()
KUBERNETES = 0xC000
CILIUM = 0x0F00
UPPER_HALF = 0xFFFF0000


@pytest.fixture
def fake() -> FakeInterceptor:
    return FakeInterceptor()


def redirection(fake: FakeInterceptor, groups: frozenset[Cgroup] = frozenset()) -> Redirection:
    return Redirection(lambda: fake, Exemption(user=7), lambda: groups)


def test_an_agent_with_a_user_of_its_own_marks_nothing() -> None:
    assert own_exemption(0, 997) == Exemption(user=997, mark=0)
    assert own_exemption(0x20, 997) == Exemption(user=997, mark=0x20)


def test_an_agent_of_root_is_exempt_by_a_bit_that_nobody_else_means() -> None:
    assert own_exemption(0, 0) == Exemption(user=0, mark=ROOT_MARK)
    assert ROOT_MARK & (KUBERNETES | CILIUM | UPPER_HALF) == 0
    assert own_exemption(0x20, 0) == Exemption(user=0, mark=0x20)


@pytest.mark.parametrize(
    ("families", "addresses"),
    [(BOTH, {"10.0.0.2", "fd00::2"}), (frozenset([socket.AF_INET]), {"10.0.0.2"}), (frozenset(), set())],
)
def test_only_families_that_are_listened_on_are_redirected(
    fake: FakeInterceptor, families: frozenset[socket.AddressFamily], addresses: set[str]
) -> None:
    redirection(fake).hold(CONFIG, DIRECTORY, families, wanted=True)
    assert (set(fake.redirect.addresses) if fake.redirect else set()) == addresses


def test_what_is_not_wanted_any_more_is_disarmed(fake: FakeInterceptor) -> None:
    held = redirection(fake)
    held.hold(CONFIG, DIRECTORY, BOTH, wanted=True)
    assert held.view(CONFIG, DIRECTORY, wanted=True).armed
    held.hold(CONFIG, DIRECTORY, BOTH, wanted=False)
    assert fake.redirect is None
    assert not held.view(CONFIG, DIRECTORY, wanted=False).armed


def test_a_peer_that_is_left_alone_is_not_redirected_and_named(fake: FakeInterceptor) -> None:
    both = PeerDirectory([PeerConfig("hv2", ["10.0.0.2"]), PeerConfig("hv3", ["10.0.0.3"])], "hv1", lambda _: False)
    held = redirection(fake)
    held.hold(CONFIG, both, BOTH, wanted=True, left_alone=frozenset(["10.0.0.2"]))
    assert fake.connect("10.0.0.2", CONFIG.port_min) == 0
    assert fake.connect("10.0.0.3", CONFIG.port_min) == CONFIG.port
    view = held.view(CONFIG, both, wanted=True)
    assert (view.armed, view.left_alone) == (True, ["hv2"])


def test_a_redirect_from_which_all_peers_are_left_alone_is_in_place_and_catches_none(fake: FakeInterceptor) -> None:
    held = redirection(fake)
    held.hold(CONFIG, DIRECTORY, BOTH, wanted=True, left_alone=frozenset(["10.0.0.2", "fd00::2"]))
    assert fake.connect("10.0.0.2", CONFIG.port_min) == 0
    view = held.view(CONFIG, DIRECTORY, wanted=True)
    assert (view.armed, view.left_alone, view.error) == (True, ["hv2"], "")
    held.hold(CONFIG, DIRECTORY, BOTH, wanted=True)
    assert fake.connect("10.0.0.2", CONFIG.port_min) == CONFIG.port
    assert held.view(CONFIG, DIRECTORY, wanted=True).left_alone == []


def test_a_refusal_is_said_and_tried_again(fake: FakeInterceptor) -> None:
    held = redirection(fake)
    fake.refuses = "no"
    held.hold(CONFIG, DIRECTORY, BOTH, wanted=True)
    assert held.view(CONFIG, DIRECTORY, wanted=True).error == "no"
    fake.refuses = ""
    held.hold(CONFIG, DIRECTORY, BOTH, wanted=True)
    assert held.view(CONFIG, DIRECTORY, wanted=True).error == ""
    assert held.view(CONFIG, DIRECTORY, wanted=True).armed


def test_the_agents_user_and_foreign_services_pass(fake: FakeInterceptor) -> None:
    gluster = Cgroup(2, 77)
    redirection(fake, frozenset([gluster])).hold(CONFIG, DIRECTORY, BOTH, wanted=True)
    port = CONFIG.port_min
    assert fake.connect("10.0.0.2", port) == CONFIG.port
    assert fake.connect("10.0.0.2", port, user=7) == 0
    assert fake.connect("10.0.0.2", port, groups=[gluster]) == 0
