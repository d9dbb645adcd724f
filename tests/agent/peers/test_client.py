"""The client of peers' agents, over real TLS on loopback."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from dwcp_migrate.agent.peers import client
from dwcp_migrate.agent.peers.client import ControlClient
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.protocol.control import VERSIONS, Ping, Pong
from dwcp_migrate.transport.core.frames import PREAMBLE_BYTES
from tests.agent.handshakes import context_of, exchange_on_new_sockets

WAIT_S = 30


async def test_a_connection_that_is_given_up_as_its_handshake_completes_leaves_no_descriptor_to_others(
    tmp_path: Path,
) -> None:
    loop = asyncio.get_running_loop()
    server_context = context_of("server", tmp_path, "destination.lab")
    client = ControlClient(lambda: context_of("client", tmp_path, "source.lab", asked.cancel), WAIT_S, 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        peer = PeerConfig(name="destination.lab", addresses=["127.0.0.1"], port=listener.getsockname()[1])
        asked = asyncio.create_task(client.ask(peer, "127.0.0.1", Ping(versions=VERSIONS), Pong))
        sock, _ = await loop.sock_accept(listener)
        assert len(await loop.sock_recv(sock, PREAMBLE_BYTES)) == PREAMBLE_BYTES
        reader = asyncio.StreamReader()
        shaking = asyncio.create_task(
            loop.connect_accepted_socket(lambda: asyncio.StreamReaderProtocol(reader), sock, ssl=server_context)
        )
        with pytest.raises(asyncio.CancelledError):
            await asked
        await exchange_on_new_sockets()
        async with asyncio.timeout(WAIT_S):
            transport, _ = await shaking
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
        transport.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (ConnectionRefusedError(111, "Connect call failed ('192.0.2.1', 7802)"), "Connection refused"),
        (OSError("odd"), "odd"),
    ],
)
def test_a_peer_that_is_not_reached_is_told_in_the_systems_words(error: OSError, said: str) -> None:
    assert client._words_of(error) == said
