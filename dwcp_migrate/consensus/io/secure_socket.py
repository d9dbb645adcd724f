"""TLS over a non-blocking socket that this module reads and writes itself: `ssl.SSLObject` between two memory buffers.

Rule: one read of the socket and one write to it for whatever is there, no exception where nothing is wrong. What the
peer does not take waits here; its owner bounds it. Callbacks come from the event loop's turn in which bytes arrived.

Measured, a vote of 60 bytes there and back, decoded and encoded on both sides, CPU of one side: asyncio's TLS 61 us,
uvloop's 35, this one 46 on asyncio and 30 on uvloop, of which the system calls and being woken are about half. Both
loops' own TLS learn from an exception that a record was the last, and pass each write through a queue.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from dwcp_migrate.consensus.pbft.model.keys import compute_digest
from dwcp_migrate.net import dns_names, send_at_once
from dwcp_migrate.units import KIB

READ_BYTES: Final = 64 * KIB
"""Of one read; four records of the largest size."""
_wire: Final = memoryview(bytearray(READ_BYTES))
_plain: Final = memoryview(bytearray(READ_BYTES))
"""For all sockets of the process: one thread, one read at a time."""


class SecureSocket:
    """A connected socket with TLS; it is closed with this object.

    Args:
        sock: connected, non-blocking.
        context: decides what of the peer is proven.
        server_hostname: name that the peer must prove; None where we were dialled.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._unsent = bytearray()
        self._received: Callable[[memoryview], None]
        self._lost: Callable[[], None]
        self._is_started = False
        self.is_closed = False

    async def handshake(self) -> None:
        """Prove each other's names; once, before `start`.

        Raises:
            OSError: the connection broke, or (ssl.SSLError) one side does not accept the other.
        """
        send_at_once(self._sock)  # asyncio does so only for sockets made with this protocol's number
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._exchange()
                continue
            finally:  # an alert too: the peer is told what was wrong
                if self._outgoing.pending:
                    await self._loop.sock_sendall(self._sock, self._outgoing.read())
            return

    async def _exchange(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._sock, self._outgoing.read())
        data = await self._loop.sock_recv(self._sock, READ_BYTES)
        if not data:
            raise ConnectionResetError("the peer hung up")
        self._incoming.write(data)

    @property
    def names(self) -> list[str]:
        """DNS names in the peer's certificate."""
        return dns_names(self._tls.getpeercert())

    @property
    def shown(self) -> bytes:
        """Digest of the peer's certificate."""
        return compute_digest(self._tls.getpeercert(binary_form=True) or b"")

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the peer has not taken."""
        return len(self._unsent)

    def start(self, received: Callable[[memoryview], None], lost: Callable[[], None]) -> None:
        """Pass on what arrives.

        Args:
            received: takes bytes, which are there until it returns.
            lost: called once, in a turn of its own, when the connection is over, whoever ended it.
        """
        self._received, self._lost = received, lost
        self._is_started = True
        self._loop.add_reader(self._sock, self._read)
        if self._incoming.pending:  # came with the end of the handshake
            self._loop.call_soon(self._decrypt)

    def _read(self) -> None:
        try:
            nbytes = self._sock.recv_into(_wire)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            nbytes = 0
        if not nbytes:
            self.close()
            return
        self._incoming.write(_wire[:nbytes])
        self._decrypt()

    def _decrypt(self) -> None:
        """Pass on the records that are whole, as many as one buffer holds at a time."""
        while (self._incoming.pending or self._tls.pending()) and not self.is_closed:
            filled, is_over = self._fill()
            if filled:
                self._received(_plain[:filled])
            if is_over:
                self.close()
            if self._outgoing.pending and not self.is_closed:  # an answer of TLS itself
                self._push(self._outgoing.read())
            if filled < READ_BYTES:
                return

    def _fill(self) -> tuple[int, bool]:
        """Decrypt into the buffer; returns how much, and whether the peer is done or broke the rules."""
        filled = 0
        try:
            while filled < READ_BYTES:
                nbytes = cast("int", self._tls.read(READ_BYTES - filled, _plain[filled:] if filled else _plain))
                filled += nbytes
                if not nbytes:
                    return filled, True
                if not self._incoming.pending and not self._tls.pending():
                    break
        except ssl.SSLWantReadError:
            pass  # the last record is not whole yet
        except OSError:
            return filled, True
        return filled, False

    def send(self, data: bytes) -> None:
        """Encrypt and send, now as far as the socket takes it."""
        if self.is_closed:
            return
        try:
            taken = self._tls.write(data)
            while taken < len(data):  # a record at a time
                taken += self._tls.write(memoryview(data)[taken:])
        except OSError:
            self.close()
            return
        self._push(self._outgoing.read())

    def _push(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.add_writer(self._sock, self._write)

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._sock)

    def close(self) -> None:
        """End the connection now, whatever is unsent."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._is_started:
            self._loop.remove_reader(self._sock)
            if self._unsent:
                self._loop.remove_writer(self._sock)
            self._loop.call_soon(self._lost)
        self._unsent.clear()
        self._sock.close()


async def secure(sock: socket.socket, context: Callable[[], ssl.SSLContext], name: str | None) -> SecureSocket:
    """Put TLS on a connected socket; it is closed if that fails.

    Args:
        sock: connected and non-blocking.
        context: makes the TLS context.
        name: that the peer must prove; None where this host was dialled.

    Raises:
        OSError: as `SecureSocket.handshake`.
        DwcpError: our own certificate cannot be read now.
    """
    try:
        secured = SecureSocket(sock, context(), name)
        await secured.handshake()
    except BaseException:
        sock.close()
        raise
    return secured
