"""The namespaces of one host (network, mount, UTS, IPC, PID), rooted in an overlay of the Debian tree.

The rule here: all that exists only inside the namespaces goes away with them. The first process in the PID namespace is
the holder; when it is killed the kernel ends everything in there, and with the last process the mounts, the devices and
the addresses are gone. Nothing outside has to be undone, whatever crashed.

    unshare -> [private mounts] overlay(tree, upper) + proc, sys, dev, run + binds -> pivot_root -> tini (the holder)

Two ways in: `inside` runs a program of the tree in all namespaces; `beside` runs a program of the machine (the agent
in its virtual environment) in the network and UTS namespaces only.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.hosts.processes import ProcessId, identify_process, launch_announced

SETUP: Final = r"""
tree=$1 state=$2 name=$3
shift 3
read -r pid rest < /proc/self/stat
hostname "$name"
ip link set lo up
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$state/upper,workdir=$state/work" "$state/root"
cd "$state/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mknod -m 666 dev/net/tun c 10 200
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mkdir run/sshd run/lock
for bind in "$@"; do
    mkdir -p ".${bind#*:}"
    mount --bind "${bind%%:*}" ".${bind#*:}"
done
pivot_root . mnt
cd /
umount -l /mnt
echo "$pid"
exec tini -- sleep infinity > /dev/null 2>&1 < /dev/null
"""
"""PID 1 of the new namespaces: mounts the file systems, prints its pid as seen from outside, becomes the holder."""

PATH_INSIDE: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES: Final = ("net", "mnt", "uts", "ipc", "pid")


@dataclass(frozen=True, slots=True)
class HostLayout:
    """Parts of a namespace.

    Attributes:
        name: host name in it.
        tree: lower layer, read-only.
        directory: holds the upper layer (`upper/`, which may be filled beforehand), `work/` and `root/`.
        binds: (directory of the machine, path inside) shared between both.
    """

    name: str
    tree: Path
    directory: Path
    binds: tuple[tuple[Path, str], ...]


@dataclass(frozen=True, slots=True)
class Namespace:
    """A host's namespaces, alive as long as their holder.

    Attributes:
        holder: PID 1 of the PID namespace, as seen from outside.
        lab_id: what its processes are marked with.
    """

    holder: ProcessId
    lab_id: str

    def path(self, kind: str) -> Path:
        """Return the /proc path of one namespace (`net`, `uts`, ...)."""
        return Path(f"/proc/{self.holder.pid}/ns/{kind}")

    @property
    def root(self) -> Path:
        """Its root directory as this machine sees it."""
        return Path("/proc") / str(self.holder.pid) / "root"

    def inside(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs a program of the tree in all namespaces."""
        enter = [f"--{'mount' if kind == 'mnt' else kind}={self.path(kind)}" for kind in NAMESPACES]
        terminal = os.environ.get("TERM", "dumb")
        clean = ["env", "-i", f"PATH={PATH_INSIDE}", "HOME=/root", "LC_ALL=C.UTF-8", f"TERM={terminal}"]
        return ["nsenter", *enter, f"--root={self.root}", "--wd=/", *clean, *argv]

    def beside(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs a program of the machine in the network and UTS namespaces.

        `nsenter` becomes the program: the pid of the started process is the program's own.
        """
        return ["nsenter", f"--net={self.path('net')}", f"--uts={self.path('uts')}", *argv]


def create(layout: HostLayout, lab_id: str) -> Namespace:
    """Make the namespaces and wait until their file systems are mounted.

    Args:
        layout: their parts.
        lab_id: mark of their processes.

    Raises:
        LabError: a mount failed; the kernel lacks overlayfs, or this process is not root's.
    """
    for part in ("upper", "work", "root"):
        (layout.directory / part).mkdir(parents=True, exist_ok=True)
    binds = [f"{outside}:{inside}" for outside, inside in layout.binds]
    unshare = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
    setup = ["--propagation", "private", "sh", "-eu", "-c", SETUP, "setup"]
    arguments = [str(layout.tree), str(layout.directory), layout.name, *binds]
    log = layout.directory / "setup.log"
    _, said = launch_announced([*unshare, *setup, *arguments], log=log, lab_id=lab_id)
    if not said.isdigit():
        raise LabError(f"cannot make host {layout.name}: {log.read_text().strip()}")
    return Namespace(identify_process(int(said)), lab_id)
