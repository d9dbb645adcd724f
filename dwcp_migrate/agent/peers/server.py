"""The answering side of control connections: a peer's agent asks, this one answers.

The rule: the certificate identifies the peer, and it must be one that is configured or found; one request at a time,
each answered before the next is read, so that a peer cannot make this agent hold more than one frame.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import ProtocolError
from dwcp_migrate.net import dns_names
from dwcp_migrate.protocol.control import Message, Refused, Request, control_frames, decode_control, encode_control
from dwcp_migrate.refusals import BY_PEER
from dwcp_migrate.tasks import wait_within
from dwcp_migrate.units import KIB

IDLE_S_MAX: Final = 600.0
"""A control connection without a request is closed; twice the time for which the asking side keeps one."""

CONNECTIONS_MAX: Final = 1024
"""Control connections at once: a few for each host of a large fleet."""

READ_BYTES: Final = 64 * KIB

Answer = Callable[[PeerConfig, Request], Awaitable[Message]]


def make_refusal(code: str, message: str = "", *, required: bool = False) -> Refused:
    """Build the refusal of a request.

    Args:
        code: one of `refusals.BY_PEER`.
        message: for people; empty takes the code's standard text.
        required: as in `Refused`.
    """
    return Refused(code=code, message=message or BY_PEER[code].text, required=required)


class ControlServer:
    """Serves control connections.

    Args:
        identify: finds the peer that one of these names belongs to.
        answer: answers a request of a peer.
        rejected: counts a connection that was closed, by reason.
    """

    def __init__(
        self, identify: Callable[[list[str]], PeerConfig | None], answer: Answer, rejected: Callable[[str], None]
    ) -> None:
        self._identify = identify
        self._answer = answer
        self._rejected = rejected
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends, is idle for `IDLE_S_MAX` or breaks the protocol.

        Args:
            reader: of the connection; its TLS handshake is done.
            writer: likewise; closed when this returns.
        """
        names = dns_names(writer.get_extra_info("peercert"))
        if self._identify(names) is None:
            self._rejected("unknown-peer")
        elif len(self._writers) >= CONNECTIONS_MAX:
            self._rejected("full")
        else:
            self._writers.add(writer)
            try:
                await self._converse(names, reader, writer)
            except ProtocolError:
                self._rejected("protocol")
            except (OSError, TimeoutError, ssl.SSLError):
                pass  # it went away; nothing of it is left here
            finally:
                self._writers.discard(writer)
        writer.close()

    async def _converse(self, names: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = control_frames()
        while data := await wait_within(reader.read(READ_BYTES), IDLE_S_MAX):
            for envelope in frames.feed(data):
                message = decode_control(envelope)
                peer = self._identify(names)
                if peer is None:  # a reload took it off the list
                    self._rejected("unknown-peer")
                    return
                if isinstance(message, Request):
                    answer = await self._answer(peer, message)
                else:
                    answer = make_refusal("unknown-request")
                writer.write(encode_control(envelope.id, answer))
                await wait_within(writer.drain(), IDLE_S_MAX)

    def close(self) -> None:
        """End all connections."""
        for writer in list(self._writers):
            writer.transport.abort()
