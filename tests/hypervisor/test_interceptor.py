"""The interceptor's contract, held by the kernel's and by the fake; then what only the kernel's promises."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import pytest

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.base import Cgroup, Exemption, Interceptor, Redirect
from dwcp_migrate.hypervisor.fake import FakeInterceptor
from dwcp_migrate.hypervisor.intercept import NftInterceptor, original_destination
from dwcp_migrate.units import PORT_MAX, PORT_MIN
from tests.hypervisor.namespace import Namespace, join

PEER = "10.9.0.2"
OTHER = "10.9.0.3"
PEER6 = "fd09::2"
TO_PORT = 7801
MANY = 10_000
ARM_CPU_S_MAX = 0.1
"""Of the event loop's thread, and of the kernel on its behalf."""

AGENT_USER = 60123
MARK = 0x1000


def redirect(*addresses: str, foreign: frozenset[Cgroup] = frozenset(), user: int = 0) -> Redirect:
    return Redirect(frozenset(addresses), PORT_MIN, PORT_MAX, TO_PORT, Exemption(user, MARK), foreign)


class World(Protocol):
    interceptor: Interceptor

    def connect(self, address: str, port: int, mark: int = 0) -> int:
        """Connect as a program of this host would; the loopback port that it reached, 0 for the peer itself."""


class FakeWorld:
    def __init__(self) -> None:
        self.fake = FakeInterceptor()
        self.interceptor: Interceptor = self.fake

    def connect(self, address: str, port: int, mark: int = 0) -> int:
        return self.fake.connect(address, port, mark=mark)


class KernelWorld:
    """Nothing listens at the peer, so a connection that is not redirected is refused there."""

    def __init__(self, here: Namespace) -> None:
        self.here = here
        self.interceptor: Interceptor = here.call(NftInterceptor)
        self.listeners = [
            here.call(socket.create_server, ("127.0.0.1", TO_PORT)),
            here.call(socket.create_server, ("::1", TO_PORT), family=socket.AF_INET6),
        ]

    def connect(self, address: str, port: int, mark: int = 0) -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.here.call(socket.socket, family) as sock:
            sock.settimeout(5)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            try:
                sock.connect((address, port))
            except ConnectionRefusedError:
                return 0
        return TO_PORT

    def close(self) -> None:
        self.interceptor.close()
        for listener in self.listeners:
            listener.close()


@pytest.fixture
def namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    here, there = Namespace(), Namespace()
    join([(here, ["10.9.0.1/24", "fd09::1/64"]), (there, [f"{PEER}/24", f"{OTHER}/24", f"{PEER6}/64"])])
    yield here, there
    here.close()
    there.close()


@pytest.fixture(params=["fake", "kernel"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    here, _ = request.getfixturevalue("namespaces")
    kernel = KernelWorld(here)
    yield kernel
    kernel.close()


def test_without_an_address_it_is_armed_and_redirects_nothing_until_one_comes(world: World) -> None:
    world.interceptor.arm(redirect())
    assert world.connect(PEER, PORT_MIN) == 0
    assert list(world.interceptor.caught()) == []
    world.interceptor.arm(redirect(PEER))
    assert world.connect(PEER, PORT_MIN) == TO_PORT
    world.interceptor.arm(redirect())
    world.interceptor.keep_alive()
    assert world.connect(PEER, PORT_MIN) == 0


def test_a_connection_to_a_peer_in_the_range_is_redirected_and_counted(world: World) -> None:
    world.interceptor.arm(redirect(PEER))
    assert world.connect(PEER, PORT_MIN) == TO_PORT
    assert world.connect(PEER, PORT_MAX) == TO_PORT
    (caught,) = world.interceptor.caught()
    assert (caught.address, caught.packets) == (PEER, 2)
    assert caught.bytes >= 2 * 40


@pytest.mark.parametrize("port", [PORT_MIN - 1, PORT_MAX + 1, 22])
def test_ports_outside_the_range_are_left_alone(world: World, port: int) -> None:
    world.interceptor.arm(redirect(PEER))
    assert world.connect(PEER, port) == 0


def test_addresses_of_nobody_are_left_alone(world: World) -> None:
    world.interceptor.arm(redirect(PEER))
    assert world.connect(OTHER, PORT_MIN) == 0


def test_a_socket_with_the_agents_mark_passes(world: World) -> None:
    world.interceptor.arm(redirect(PEER))
    assert world.connect(PEER, PORT_MIN, mark=MARK) == 0


def test_ipv6_peers_are_redirected_too(world: World) -> None:
    world.interceptor.arm(redirect(PEER, PEER6))
    assert world.connect(PEER6, PORT_MIN) == TO_PORT
    assert [caught.packets for caught in world.interceptor.caught()] == [0, 1]


def test_arming_again_replaces_all_redirects(world: World) -> None:
    world.interceptor.arm(redirect(PEER, PEER6))
    world.interceptor.arm(redirect(OTHER))
    assert [caught.address for caught in world.interceptor.caught()] == [OTHER]
    assert world.connect(PEER, PORT_MIN) == 0


def test_disarming_twice_is_fine_and_leaves_nothing(world: World) -> None:
    world.interceptor.arm(redirect(PEER))
    world.interceptor.disarm()
    world.interceptor.disarm()
    assert world.interceptor.caught() == []
    assert world.connect(PEER, PORT_MIN) == 0


@dataclass
class Redirected:
    """A connection that the kernel's interceptor led to the agent's port, both ends of it."""

    interceptor: NftInterceptor
    loopback: str
    listener: socket.socket
    ours: socket.socket
    accepted: socket.socket


@contextmanager
def redirected(here: Namespace, address: str, port: int = PORT_MIN) -> Iterator[Redirected]:
    loopback, family = ("::1", socket.AF_INET6) if ":" in address else ("127.0.0.1", socket.AF_INET)
    interceptor = here.call(NftInterceptor)
    interceptor.arm(redirect(address))
    with (
        here.call(socket.create_server, (loopback, TO_PORT), family=family) as listener,
        here.call(socket.create_connection, (address, port)) as ours,
    ):
        accepted, _ = listener.accept()
        with accepted:
            ours.settimeout(5)
            accepted.settimeout(5)
            yield Redirected(interceptor, loopback, listener, ours, accepted)
    interceptor.close()


def test_connections_that_were_redirected_survive_disarming(namespaces: tuple[Namespace, Namespace]) -> None:
    here, _ = namespaces
    with redirected(here, PEER) as found:
        arm, disarm = found.interceptor.arm, found.interceptor.disarm
        for change in (disarm, lambda: arm(redirect(OTHER)), disarm):
            change()
            found.ours.sendall(b"there")
            assert found.accepted.recv(5) == b"there"
            found.accepted.sendall(b"back")
            assert found.ours.recv(4) == b"back"


@pytest.mark.parametrize("address", [PEER, PEER6])
def test_what_keeps_the_translation_outlives_the_agent_and_leaves_nothing(
    namespaces: tuple[Namespace, Namespace], address: str
) -> None:
    here, _ = namespaces
    with redirected(here, address) as found:
        kept = here.call(found.interceptor.keep_translation)
        found.interceptor.close()
        assert f"redirect to :{TO_PORT}" not in here.run("nft", "list", "ruleset")
        found.accepted.close()
        assert found.ours.recv(1) == b""
    assert here.run("nft", "list", "ruleset") != ""
    kept.close()
    assert here.run("nft", "list", "ruleset") == ""


def test_arming_nothing_disarms(world: World) -> None:
    world.interceptor.arm(redirect(PEER))
    world.interceptor.arm(redirect())
    assert world.interceptor.caught() == []


def test_a_second_agent_is_refused_and_the_first_stays_armed(namespaces: tuple[Namespace, Namespace]) -> None:
    here, _ = namespaces
    first, second = here.call(NftInterceptor), here.call(NftInterceptor)
    first.arm(redirect(PEER))
    with pytest.raises(HypervisorError, match="not permitted"):
        second.arm(redirect(OTHER))
    assert [caught.address for caught in first.caught()] == [PEER]
    second.close()
    first.close()


def test_ten_thousand_addresses_are_armed_at_once_and_a_change_keeps_the_counts() -> None:
    here = Namespace()
    here.run("ip", "address", "add", "10.0.0.0/8", "dev", "lo")
    interceptor = here.call(NftInterceptor)
    many = [f"10.{number >> 8}.{number & 255}.1" for number in range(MANY)]
    began = time.process_time()
    interceptor.arm(redirect(*many))
    took_s = time.process_time() - began
    assert took_s < ARM_CPU_S_MAX
    assert [caught.address for caught in interceptor.caught()] == many
    with here.call(socket.create_server, ("127.0.0.1", TO_PORT)):
        here.call(socket.create_connection, (many[-1], PORT_MIN)).close()
    interceptor.arm(redirect(*many[1:], "11.0.0.1"))
    *_, counted, added = interceptor.caught()
    assert (counted.address, counted.packets) == (many[-1], 1)
    assert (added.address, added.packets) == ("11.0.0.1", 0)
    interceptor.close()
    here.close()


def test_sockets_of_the_agents_user_pass_without_a_mark(namespaces: tuple[Namespace, Namespace]) -> None:
    here, _ = namespaces
    kernel = KernelWorld(here)
    kernel.interceptor.arm(redirect(PEER, user=AGENT_USER))
    program = (
        "import os, socket\n"
        "socket.socket().connect_ex(('127.0.0.1', 1))\n"  # imports what it needs while it may
        f"os.setuid({AGENT_USER})\n"
        "sock = socket.socket()\n"
        "try:\n"
        f"    sock.connect(({PEER!r}, {PORT_MIN}))\n"
        "    print('redirected')\n"
        "except ConnectionRefusedError:\n"
        "    print('passed')\n"
    )
    assert here.run(sys.executable, "-c", program) == "passed\n"
    assert here.run(sys.executable, "-c", program.replace(str(AGENT_USER), str(AGENT_USER + 1))) == "redirected\n"
    assert kernel.connect(PEER, PORT_MIN) == TO_PORT
    kernel.close()


def test_a_socket_with_one_more_bit_in_its_mark_passes_too(world: World) -> None:
    world.interceptor.arm(redirect(PEER))
    assert world.connect(PEER, PORT_MIN, mark=MARK | 0x4000) == 0
    assert world.connect(PEER, PORT_MIN, mark=0x4000) == TO_PORT


@pytest.mark.parametrize("address", [PEER, PEER6])
def test_the_accepted_socket_names_its_original_destination(
    namespaces: tuple[Namespace, Namespace], address: str
) -> None:
    here, _ = namespaces
    with redirected(here, address, PORT_MIN + 7) as found:
        assert original_destination(found.accepted) == (address, PORT_MIN + 7)
        with here.call(socket.create_connection, (found.loopback, TO_PORT)):
            direct, _ = found.listener.accept()
            with direct:
                assert original_destination(direct) is None


def test_the_redirect_dies_with_a_process_that_is_killed(namespaces: tuple[Namespace, Namespace]) -> None:
    here, _ = namespaces
    program = (
        "from dwcp_migrate.hypervisor.intercept import *\n"
        "interceptor = NftInterceptor()\n"
        f"interceptor.arm(Redirect(frozenset([{PEER!r}]), {PORT_MIN}, {PORT_MAX}, {TO_PORT}))\n"
        "print('armed', flush=True)\ninput()"
    )
    process = here.start(sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "armed\n"
    assert PEER in here.run("nft", "list", "ruleset")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert here.run("nft", "list", "ruleset") == ""


def test_an_agent_that_says_nothing_for_a_while_catches_nothing(namespaces: tuple[Namespace, Namespace]) -> None:
    here, _ = namespaces
    kernel = KernelWorld(here)
    kernel.interceptor.close()
    kernel.interceptor = here.call(NftInterceptor, 0.5)
    try:
        kernel.interceptor.arm(redirect(PEER, PEER6))
        began = time.monotonic()
        while time.monotonic() < began + 1.0:  # twice as long as an agent may be silent
            kernel.interceptor.keep_alive()
        assert kernel.connect(PEER, PORT_MIN) == kernel.connect(PEER6, PORT_MIN) == TO_PORT
        for _ in range(20):
            threading.Event().wait(0.1)  # the kernel tells nobody when an element leaves
            if not kernel.connect(PEER, PORT_MIN):
                break
        assert kernel.connect(PEER6, PORT_MIN) == 0
        kernel.interceptor.keep_alive()
        assert kernel.connect(PEER, PORT_MIN) == kernel.connect(PEER6, PORT_MIN) == TO_PORT
    finally:
        kernel.close()
