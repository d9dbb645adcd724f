"""A guest's memory through libvirtd, with the access that the agent has anyway.

libvirtd has QEMU save each piece into a file of its own and hands the bytes on. The guest runs on meanwhile. Asking for
the map of memory (`info mtree`) marks the domain as tainted, `custom-monitor`, in libvirt's log and `virsh dominfo`:
that is how libvirt notes every command that it did not give itself.
"""

import contextlib
import re
from typing import Any, Final

import libvirt
import libvirt_qemu

from dwcp_migrate.errors import GuestMemoryError
from dwcp_migrate.hypervisor.inventory.connection import keep_alive, open_connection
from dwcp_migrate.hypervisor.memory.address_map import parse_memory_map
from dwcp_migrate.hypervisor.memory.base import GuestMemory

ENCRYPTED: Final = re.compile(r"<launchSecurity\b")
"""In a domain's description: its memory cannot be read from outside, and would come as noise."""

MAP_COMMAND: Final = "info mtree -f"


class PeekedMemory(GuestMemory):
    """Memory of a domain of a libvirtd.

    Args:
        uri: of libvirtd.
        uuid: of the domain.

    Raises:
        GuestMemoryError: no such domain runs there, it is encrypted, or where its memory is cannot be told.
        HypervisorError: libvirtd does not answer.
    """

    def __init__(self, uri: str, uuid: str) -> None:
        try:
            self._connection = open_connection(uri)
        except libvirt.libvirtError as error:
            raise GuestMemoryError(f"no connection to {uri}: {error}", hint="see `dwcp-migrate doctor`") from error
        keep_alive(self._connection)
        try:
            self._domain = self._connection.lookupByUUIDString(uuid)
            super().__init__(parse_memory_map(_map_of(self._domain)))
        except libvirt.libvirtError as error:
            self.close()
            raise GuestMemoryError(f"domain {uuid}: {error}", hint="does it run on this host?") from error
        except GuestMemoryError:
            self.close()
            raise

    def _read(self, begin: int, size: int) -> bytes:
        try:
            return bytes(self._domain.memoryPeek(begin, size, libvirt.VIR_MEMORY_PHYSICAL))
        except libvirt.libvirtError as error:
            raise GuestMemoryError(f"the guest's memory at {begin:#x} cannot be read: {error}") from error

    def close(self) -> None:
        """See `GuestMemory.close`."""
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()


def _map_of(domain: Any) -> str:
    """QEMU's map of a domain's memory. Raises libvirt.libvirtError, GuestMemoryError."""
    if ENCRYPTED.search(domain.XMLDesc(0)):
        raise GuestMemoryError(
            "the guest's memory is encrypted", hint="pages of such a guest cannot be named; it migrates as ever"
        )
    answer = libvirt_qemu.qemuMonitorCommand(domain, MAP_COMMAND, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    return str(answer)
