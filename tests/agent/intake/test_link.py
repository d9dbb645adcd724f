"""Connections that the link port takes in before it is known whose they are."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dwcp_migrate.agent.intake.link import GREETINGS, HANDSHAKES, REPLICA_HANDSHAKES, LinkIntake
from dwcp_migrate.agent.log_budget import LINES_MAX
from dwcp_migrate.protocol.control import CONTROL_SESSION, STATE_SESSION
from dwcp_migrate.transport.core.frames import Preamble, encode_preamble
from tests.agent.handshakes import context_of, exchange_on_new_sockets, shake_hands
from tests.agent.hosts import DESTINATION_ADDRESS, SOURCE_ADDRESS, Host, echoing, exchange

if TYPE_CHECKING:
    from dwcp_migrate.agent.peers.server import ControlServer

Hosts = tuple[Host, Host]
STRANGER = "10.77.0.99"
LINK_PORT = 7802


class NoControl:
    def close(self) -> None:
        """Nothing runs."""


def no_context() -> ssl.SSLContext:
    raise AssertionError("nobody gets so far")


def intake(
    rejected: Callable[[str], None] = lambda _: None, context: Callable[[], ssl.SSLContext] = no_context
) -> LinkIntake:
    control = cast("ControlServer", NoControl())
    return LinkIntake(context, control, lambda _id, _sock: False, {}, lambda _: False, rejected)


async def test_one_whose_task_never_began_is_closed_at_the_end() -> None:
    taken = intake()
    ours, theirs = socket.socketpair()
    with theirs:
        taken.take(ours)
        await taken.close()
        assert ours.fileno() < 0
        assert theirs.recv(1) == b""


async def test_one_whose_handshake_completes_as_the_agent_ends_leaves_no_descriptor_to_others(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def close() -> None:
        await taken.close()
        ended.set()

    def end() -> None:
        closing.add(asyncio.create_task(close()))

    closing = set[asyncio.Task[None]]()

    taken = intake(context=lambda: context_of("server", tmp_path, "destination.lab", end))
    ours, theirs = socket.socketpair()
    taken.take(ours)
    theirs.sendall(encode_preamble(Preamble(CONTROL_SESSION)))
    theirs.setblocking(False)
    with theirs:
        await shake_hands(theirs, context_of("client", tmp_path, "source.lab"), "destination.lab")
        await ended.wait()
        await exchange_on_new_sockets()


def flood(source: Host, count: int, greeting: bytes) -> list[socket.socket]:
    """Connect from the stranger's address and say only that much."""
    sockets = []
    for _ in range(count):
        sock = source.namespace.call(
            socket.create_connection, (DESTINATION_ADDRESS, LINK_PORT), 10, source_address=(STRANGER, 0)
        )
        with contextlib.suppress(OSError):
            sock.sendall(greeting)
        sockets.append(sock)
    return sockets


def test_a_stranger_that_fills_the_link_port_shuts_out_no_peer(hosts: Hosts) -> None:
    source, destination = hosts
    source.namespace.run("ip", "address", "add", f"{STRANGER}/24", "dev", "joined0")
    source.namespace.run("ip", "route", "replace", f"{DESTINATION_ADDRESS}/32", "dev", "joined0", "src", SOURCE_ADDRESS)
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()
    silent = flood(source, GREETINGS.source + 10, b"")
    tls = flood(source, HANDSHAKES.source + 10, b"")
    greeted = flood(source, HANDSHAKES.source + 10, encode_preamble(Preamble(CONTROL_SESSION)))
    destination.wait(lambda status: status.totals.rejected.get("link full", 0) >= 10)
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert source.ended()[0].passthrough_reason == ""
    for sock in [*silent, *tls, *greeted]:
        sock.close()


def test_a_stranger_takes_no_room_from_the_members_of_a_group(hosts: Hosts) -> None:
    source, destination = hosts
    source.namespace.run("ip", "address", "add", f"{STRANGER}/24", "dev", "joined0")
    destination.start()
    held = flood(source, REPLICA_HANDSHAKES.source + 6, encode_preamble(Preamble(STATE_SESSION)))
    destination.wait(lambda status: status.totals.rejected.get("link replicas", 0) == 6)
    for sock in held:
        sock.close()


def test_handshakes_of_one_stranger_are_capped_and_their_failures_fill_no_log(hosts: Hosts) -> None:
    source, destination = hosts
    source.namespace.run("ip", "address", "add", f"{STRANGER}/24", "dev", "joined0")
    destination.start()
    greeting = encode_preamble(Preamble(CONTROL_SESSION))
    held = flood(source, HANDSHAKES.source + 5, greeting)
    destination.wait(lambda status: status.totals.rejected.get("link handshakes", 0) == 5)
    for sock in held:
        sock.close()
    destination.wait(lambda status: status.totals.rejected.get("link tls", 0) == HANDSHAKES.source)
    for sock in flood(source, 3 * LINES_MAX, greeting + b"no TLS"):
        sock.close()
    destination.wait(lambda status: status.totals.rejected.get("link tls", 0) >= HANDSHAKES.source + 2 * LINES_MAX)
    assert 1 <= destination.log.count("control connection refused") <= 2 * LINES_MAX
