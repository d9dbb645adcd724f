"""TLS handshakes that a test has something to do at the end of."""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from dwcp_migrate.transport.tls import make_context
from tests.agent.hosts import make_authority

PAIRS = 16


def context_of(
    side: Literal["client", "server"], directory: Path, name: str, shaken: Callable[[], object] | None = None
) -> ssl.SSLContext:
    """A TLS context that calls `shaken` in the step of the event loop in which a handshake is complete.

    Args:
        side: of the connection.
        directory: of a fleet's certificates.
        name: whose certificate.
        shaken: what to do.
    """
    if not (directory / "ca.pem").exists():
        make_authority(directory)
    context = make_context(side, directory / "ca.pem", directory / f"{name}.pem", directory / f"{name}.key")

    class Shaken(ssl.SSLObject):
        def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: FBT001, FBT002 - as ssl has it
            if shaken is not None:
                shaken()
            return super().getpeercert(binary_form)

    context.sslobject_class = Shaken
    return context


async def shake_hands(sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
    """Do a client's half of a handshake, and read nothing any more.

    Args:
        sock: non-blocking.
        context: of the client.
        name: of the server.
    """
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    is_done = False
    while not is_done:
        try:
            tls.do_handshake()
            is_done = True
        except ssl.SSLWantReadError:
            pass
        await loop.sock_sendall(sock, outgoing.read())
        if not is_done:
            incoming.write(await loop.sock_recv(sock, 65536))


async def exchange_on_new_sockets() -> None:
    """Carry a byte either way over new sockets, enough of them to get every descriptor that is free just now."""
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(PAIRS)]
    for one, other in [*pairs, *map(reversed, pairs)]:
        for sock in (one, other):
            sock.setblocking(False)
        receiving = asyncio.create_task(loop.sock_recv(other, 2))
        await asyncio.sleep(0)  # it waits for its descriptor
        await loop.sock_sendall(one, b"x")
        async with asyncio.timeout(5):
            assert await receiving == b"x"
    for sock in itertools.chain(*pairs):
        sock.close()
