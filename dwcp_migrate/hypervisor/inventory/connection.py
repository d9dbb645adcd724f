"""Connections to libvirtds, opened within a bound, and libvirt's own event loop for their keepalive."""

import contextlib
import queue
import threading
from typing import Any, Final

import libvirt

from dwcp_migrate.errors import HypervisorError

KEEPALIVE_S: Final = 5
KEEPALIVE_COUNT: Final = 3
"""A libvirtd that is stuck, or whose host died, fails our calls after 20 s instead of holding their threads."""

OPEN_S_MAX: Final = 20.0
"""Time that a libvirtd has to answer a new connection: one that is stopped still accepts, and libvirt would wait on."""


def open_connection(uri: str) -> Any:
    """Connect to a libvirtd, within a bound: keepalive guards a connection only once it is there.

    Raises:
        HypervisorError: it accepted and then said nothing. The thread that waits for it is left behind.
        libvirt.libvirtError: it refused.
    """
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answer.put(libvirt.open(uri))
        except libvirt.libvirtError as error:
            answer.put(error)

    threading.Thread(target=connect, name="libvirt-open", daemon=True).start()
    try:
        found = answer.get(timeout=OPEN_S_MAX)
    except queue.Empty:
        raise HypervisorError(
            f"{uri}: its libvirtd takes connections and does not answer within {OPEN_S_MAX:.0f} s",
            hint="`systemctl status libvirtd virtqemud` on that host",
        ) from None
    if isinstance(found, libvirt.libvirtError):
        raise found
    return found


def keep_alive(connection: Any) -> None:
    """Have calls on a connection (libvirt.virConnect) fail once the other end says nothing for `KEEPALIVE_S` thrice."""
    with contextlib.suppress(libvirt.libvirtError):  # a local driver has no keepalive
        connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)


def is_alive(connection: Any) -> bool:
    """Tell whether a connection (libvirt.virConnect) still stands."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def run_events() -> None:
    """Run libvirt's event loop, for ever."""
    while True:
        libvirt.virEventRunDefaultImpl()
