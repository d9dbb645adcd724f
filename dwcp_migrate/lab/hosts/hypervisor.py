"""One hypervisor of the lab: a real libvirtd (and sshd) in namespaces of its own.

The rule here: what runs in a hypervisor is stock. Its libvirt is reached from inside as an operator would
(`virsh`, `qemu+ssh://hv2/system`, `qemu+tcp://hv2/system`) and from outside through its socket.

Directories that both sides share (outside, below the hypervisor's directory -> inside):
    run/      -> /run/dwcp-migrate       the agent's control and hook sockets
    libvirt/  -> /run/libvirt            libvirtd's sockets
    console/  -> /var/log/guests         the guests' serial consoles, one file a guest
    disks/    -> /var/lib/libvirt/images disks of guests that have one
    cached guest images -> /srv/guest    kernel and initramfs, the same on all hosts
"""

import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.commands import run_program
from dwcp_migrate.lab.hosts import settings
from dwcp_migrate.lab.hosts.namespace import HostLayout, Namespace, create
from dwcp_migrate.lab.hosts.processes import ProcessId, launch
from dwcp_migrate.lab.hosts.service import user_of

LIBVIRTD_READY_S_MAX: Final = 60.0
"""`libvirtd --daemon` returns when its sockets listen: 0.3 s alone, more where many labs share two cores."""

SOCKET_PATH_BYTES_MAX: Final = 107
"""sockaddr_un holds 108 bytes with the closing zero."""

GONE_S_MAX: Final = 60.0
POLL_S: Final = 0.1

END_LIBVIRTD: Final = r"""
pid=$(cat /run/libvirtd.pid)
kill "$pid"
while kill -0 "$pid" 2> /dev/null; do sleep 0.05; done
"""

CONSOLE_DIRECTORY: Final = "/var/log/guests"
DISK_DIRECTORY: Final = "/var/lib/libvirt/images"
IMAGE_DIRECTORY: Final = "/srv/guest"


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """A running hypervisor.

    Attributes:
        name: its host name.
        address: its address on the WAN.
        directory: its directory on this machine.
        namespace: the way in.
    """

    name: str
    address: str
    directory: Path
    namespace: Namespace

    @property
    def run_directory(self) -> Path:
        """Directory of this machine that is /run/dwcp-migrate inside."""
        return self.directory / "run"

    @property
    def libvirt_socket(self) -> Path:
        """Path on this machine of libvirtd's socket."""
        return self.directory / "libvirt" / "libvirt-sock"

    @property
    def libvirt_uri(self) -> str:
        """URI of its libvirt for programs of this machine."""
        return f"qemu:///system?socket={self.libvirt_socket}"

    def is_alive(self) -> bool:
        """Tell whether its namespaces still stand."""
        return self.namespace.holder.is_alive()

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 120.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the tree inside, to its end.

        Args:
            argv: the program and its arguments.
            timeout_s: longest run in seconds; the program is killed then.
            check: raise when it exits with another code than 0.

        Raises:
            LabError: it failed (with `check`) or took longer than `timeout_s`.
        """
        bounded = ["timeout", "--kill-after=1", f"{timeout_s:.1f}", *argv]  # killing nsenter would leave its child
        return run_program(self.namespace.inside(bounded), timeout_s=timeout_s + 5, check=check)

    def virsh(self, *arguments: str, timeout_s: float = 120.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run virsh inside, as an operator on this host would.

        Args:
            *arguments: of virsh.
            timeout_s: as for `run`.
            check: as for `run`.

        Raises:
            LabError: as `run`.
        """
        return self.run(["virsh", *arguments], timeout_s=timeout_s, check=check)

    def popen(self, argv: Sequence[str]) -> "subprocess.Popen[str]":
        """Start a program of the tree inside; stdout and stderr are pipes, text.

        It has a process group of its own: `os.killpg(process.pid, ...)` reaches it, a signal to `nsenter` does not.
        """
        return subprocess.Popen(
            self.namespace.inside(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def spawn(self, argv: Sequence[str], *, log: Path) -> ProcessId:
        """Start a program of this machine (not of the tree) in the host's network and UTS namespaces.

        It outlives us, belongs to the lab and is ended by `lab down`.

        Args:
            argv: the program and its arguments.
            log: file to which its output is appended.

        Raises:
            LabError: it ended at once.
        """
        return launch(self.namespace.beside(argv), log=log, lab_id=self.namespace.lab_id)

    def domains(self) -> list[str]:
        """Return the names of the domains that run (or are paused) here."""
        return self.virsh("list", "--name").stdout.split()

    def wait_gone(self, domain: str) -> None:
        """Wait until libvirt knows no domain of this name.

        Raises:
            LabError: it still does after `GONE_S_MAX`.
        """
        deadline = time.monotonic() + GONE_S_MAX
        while domain in self.domains():
            if time.monotonic() >= deadline:
                raise LabError(f"{domain} is still a domain on {self.name}")
            time.sleep(POLL_S)  # virsh tells the end of a domain only to those who asked before it

    def restart_libvirtd(self) -> None:
        """End libvirtd and start it again; guests run on meanwhile.

        Raises:
            LabError: it does not end, or not come back.
        """
        self.run(["sh", "-c", END_LIBVIRTD], timeout_s=LIBVIRTD_READY_S_MAX)
        start_libvirtd(self)

    def console(self, guest: str) -> Path:
        """Return the path on this machine of a guest's serial console on this host."""
        return self.directory / "console" / f"{guest}.log"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Parts of a hypervisor.

    Attributes:
        name: its host name.
        addresses: all hosts' names and addresses, its own among them.
        tree: root of the Debian tree.
        images: directory of guest images, read by QEMU.
        key: lets root go from host to host.
        hook: libvirt hook to install, or None.
        keepalive: libvirt's, as shipped.
    """

    name: str
    addresses: dict[str, str]
    tree: Path
    images: Path
    key: settings.SshKey
    hook: Path | None
    keepalive: bool = True


def build(blueprint: Blueprint, directory: Path, *, lab_id: str) -> Hypervisor:
    """Make a hypervisor's namespaces; `start` starts its daemons once the WAN exists.

    Args:
        blueprint: its parts.
        directory: for all that it writes; made if it is not there.
        lab_id: mark of its processes.

    Raises:
        LabError: the directory's path is too long for a socket, or the namespaces cannot be made.
    """
    address = blueprint.addresses[blueprint.name]
    shared = {
        "run": "/run/dwcp-migrate",
        "libvirt": "/run/libvirt",
        "console": CONSOLE_DIRECTORY,
        "disks": DISK_DIRECTORY,
    }
    for part in shared:
        (directory / part).mkdir(parents=True, exist_ok=True)
    if len(bytes(directory / "libvirt" / "libvirt-admin-sock")) > SOCKET_PATH_BYTES_MAX:
        raise LabError(f"{directory} is too long for sockets", hint="choose a shorter name")
    _write_settings(directory / "upper", blueprint)
    binds = (*((directory / part, inside) for part, inside in shared.items()), (blueprint.images, IMAGE_DIRECTORY))
    layout = HostLayout(blueprint.name, blueprint.tree, directory, binds)
    return Hypervisor(blueprint.name, address, directory, create(layout, lab_id))


def start(hypervisor: Hypervisor) -> None:
    """Start libvirtd and sshd and wait until both listen.

    TCP forgets what it learned from earlier connections, so that one migration's luck is not the next one's start.

    Raises:
        LabError: one of them did not start; its own message is in the error.
    """
    hypervisor.run(["sysctl", "-q", "-w", "net.ipv4.tcp_no_metrics_save=1"])
    start_libvirtd(hypervisor)
    hypervisor.run(["/usr/sbin/sshd"])


def start_libvirtd(hypervisor: Hypervisor) -> None:
    """Start libvirtd and wait until it listens. Raises LabError when it does not."""
    hypervisor.run(["libvirtd", "--daemon", "--listen"], timeout_s=LIBVIRTD_READY_S_MAX)


def _write_settings(upper: Path, blueprint: Blueprint) -> None:
    identity = str(uuid.uuid4())
    contents = settings.files(
        blueprint.name, blueprint.addresses, identity, blueprint.key, keepalive=blueprint.keepalive
    )
    user = user_of(blueprint.addresses[blueprint.name])
    for file, entry in settings.account(user).items():
        contents[file] = (blueprint.tree / file).read_text() + entry
    for path, content in contents.items():
        (upper / path).parent.mkdir(parents=True, exist_ok=True)
        (upper / path).write_text(content)
    (upper / "root").chmod(0o700)
    (upper / "root/.ssh").chmod(0o700)
    (upper / "root/.ssh/id_ed25519").chmod(0o600)
    if blueprint.hook is not None:
        installed = upper / "etc/libvirt/hooks/qemu.d" / blueprint.hook.name
        installed.parent.mkdir(parents=True, exist_ok=True)
        installed.write_bytes(blueprint.hook.read_bytes())
        installed.chmod(0o755)
