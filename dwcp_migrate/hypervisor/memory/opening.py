"""The way to a guest's memory by the URI of its hypervisor."""

from pathlib import Path

from dwcp_migrate.hypervisor.memory.base import GuestMemory
from dwcp_migrate.hypervisor.memory.fake import FAKE_SCHEME, MemoryFile


def open_memory(uri: str, uuid: str) -> GuestMemory:
    """Open the memory of a guest that runs.

    Args:
        uri: of its libvirtd; `file:DIRECTORY` is `fake`'s.
        uuid: of the guest.

    Raises:
        GuestMemoryError: it does not run there, or its memory cannot be told from its devices.
        HypervisorError: libvirtd does not answer.
    """
    if uri.startswith(FAKE_SCHEME):
        return MemoryFile(Path(uri.removeprefix(FAKE_SCHEME)), uuid)
    from dwcp_migrate.hypervisor.memory.libvirt_peek import PeekedMemory  # no migration's data process needs libvirt

    return PeekedMemory(uri, uuid)
