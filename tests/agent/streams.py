"""Long streams between two agents: blocks that are compared where they arrive."""

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator

from dwcp_migrate.units import MIB
from tests.agent.hosts import DESTINATION_ADDRESS, WAIT_S, Host

BLOCK = random.Random(1).randbytes(MIB)


@contextlib.contextmanager
def comparing(listener: socket.socket) -> Iterator[list[int]]:
    """Take one connection's blocks up to its end; yields the number of those that came as they were sent."""
    clean: list[int] = []

    def serve() -> None:
        sock, _ = listener.accept()
        buffer = bytearray(MIB)
        with sock:
            while sock.recv_into(buffer, MIB, socket.MSG_WAITALL) == MIB and buffer == BLOCK:
                clean.append(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield clean
        thread.join(WAIT_S)
    finally:
        listener.close()


def carry_blocks(
    source: Host,
    destination: Host,
    blocks: int,
    *,
    address: str = DESTINATION_ADDRESS,
    between: Callable[[int], object] = lambda _: None,
    timeout_s: float = WAIT_S,
) -> int:
    """Bring blocks across as QEMU would, and see that they arrive; returns how many there were.

    Args:
        source: where they are sent.
        destination: where they have to arrive.
        blocks: how many at most.
        address: that is dialled.
        between: called before each block with its number; the stream ends there if it returns True.
        timeout_s: for each block, and for the answer.
    """
    with comparing(destination.listen()) as clean, source.connect(address) as sock:
        sock.settimeout(timeout_s)
        sent = 0
        while sent < blocks and between(sent) is not True:
            sock.sendall(BLOCK)
            sent += 1
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert len(clean) == sent
    return sent
