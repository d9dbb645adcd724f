"""Control groups of services that are known to migrate no guest.

Only units whose names leave no doubt count: a mount, or a service directly below `system.slice` whose name has no part
that hints at virtualisation or containers. All others may migrate a guest: sessions, containers, guests, and processes
without a group of version 2.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from dwcp_migrate.hypervisor.base import Cgroup
from dwcp_migrate.hypervisor.netlink.sock_diag import SocketOwners

SLICE: Final = "system.slice"
SLICE_LEVEL: Final = 1

MAY_MIGRATE: Final = (
    "virt",
    "qemu",
    "kvm",
    "nova",
    "vdsm",
    "kubevirt",
    "machine",
    "docker",
    "podman",
    "libpod",
    "conmon",
    "containerd",
    "crio",
    "kube",
    "lxc",
    "lxd",
    "incus",
    "kolla",
    "dwcp",
)
"""Parts of the names of services that may run libvirtd or QEMU, by themselves or in a container."""


def is_foreign(unit: str) -> bool:
    """Whether systemd's name of a unit below `system.slice` says that it migrates no guest."""
    if unit.endswith(".mount"):
        return True
    return unit.endswith(".service") and not any(word in unit.lower() for word in MAY_MIGRATE)


def mount_point(mounts: Path = Path("/proc/self/mounts")) -> Path | None:
    """Mount point of control groups of version 2; None where there is none."""
    with contextlib.suppress(OSError):
        for line in mounts.read_text().splitlines():
            _, where, kind, *_ = line.split(" ")
            if kind == "cgroup2":
                return Path(where)
    return None


def foreign_groups(root: Path | None) -> frozenset[Cgroup]:
    """Read the groups of services that migrate no guest; none where there is no such tree."""
    if root is None:
        return frozenset()
    try:
        with os.scandir(root / SLICE) as entries:
            return frozenset(
                Cgroup(SLICE_LEVEL + 1, entry.inode())
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and is_foreign(entry.name)
            )
    except OSError:
        return frozenset()


class ForeignServices:
    """The services of this host that migrate no guest.

    Args:
        root: where groups of version 2 are mounted; None where they are not.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._owners: SocketOwners | None = None
        with contextlib.suppress(OSError):  # a kernel without sock_diag: no connection is known to be foreign
            self._owners = SocketOwners()

    def groups(self) -> frozenset[Cgroup]:
        """Their groups, as they are now."""
        return foreign_groups(self._root)

    def opened(self, local: tuple[str, int], remote: tuple[str, int]) -> bool:
        """Whether one of these services opened a connection; False where the kernel does not say.

        The redirect lets such connections pass. One arrives here only of a service that has just begun, or under a
        kernel whose rules know no groups.

        Args:
            local: address and port of the end that opened it.
            remote: address and port that it connected to, before the redirect.
        """
        groups = self.groups()
        if not groups or self._owners is None:
            return False
        number = self._owners.cgroup(local, remote)
        return any(group.number == number for group in groups)

    def close(self) -> None:
        """Close what asks the kernel."""
        if self._owners is not None:
            self._owners.close()
