"""The onward connection of a migration that passes through: to where QEMU wanted to go, past the redirect.

libvirt and QEMU would have tried the peer's next address where one is refused, but the redirect took theirs at once;
so the addresses are tried here, strictly one after the other: to a waiting QEMU a second connection is a channel.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Final

from dwcp_migrate.errors import SessionError
from dwcp_migrate.net import open_tcp_socket

ONWARD_CONNECT_S_MAX: Final = 20.0
"""The port listens already, so only loss delays it."""

ALTERNATIVE_S_MAX: Final = 5.0
"""For each of several addresses; the first one gets the whole time once all have failed."""


async def dial_onward(addresses: Sequence[str], port: int, mark: int) -> tuple[socket.socket, str]:
    """Connect to a port at the first of a host's addresses that takes it.

    Args:
        addresses: in the order of preference, the dialled one first.
        port: where its QEMU waits.
        mark: socket mark that the redirect lets pass.

    Returns:
        The connected socket, and the address.

    Raises:
        SessionError: none takes it; all of them are named with their reasons.
    """
    errors: dict[str, str] = {}
    several = len(addresses) > 1
    attempts = [(address, ALTERNATIVE_S_MAX if several else ONWARD_CONNECT_S_MAX) for address in addresses]
    if several:
        attempts.append((addresses[0], ONWARD_CONNECT_S_MAX))
    for address, timeout_s in attempts:
        if errors.get(address, _TIMED_OUT) != _TIMED_OUT:
            continue  # it was refused: asking again changes nothing
        try:
            return await _dial(address, port, mark, timeout_s), address
        except TimeoutError:
            errors[address] = _TIMED_OUT
        except OSError as error:
            errors[address] = os.strerror(error.errno) if error.errno else str(error)  # asyncio words it anew
    said = ", ".join(f"{address}: {error}" for address, error in errors.items())
    raise SessionError(f"no connection to port {port} of the destination ({said})")


_TIMED_OUT: Final = "timed out"


async def _dial(address: str, port: int, mark: int, timeout_s: float) -> socket.socket:
    onward = open_tcp_socket(address, mark)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(onward, (address, port))
    except BaseException:
        onward.close()
        raise
    return onward
