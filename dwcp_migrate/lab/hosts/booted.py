"""Hypervisors that are booted: systemd is PID 1, libvirtd and sshd are its services. For trying out the installation.

The rule here: as in `namespace`, all that exists only inside the namespaces goes away with PID 1; outside remain the
host's directory and its control group, and `BootedFleet.close` removes both. Nothing is simulated: the unit that is
started in here runs under the systemd, with the sandbox, that a Debian host gives it.

    controller's network namespace: bridge 10.89.0.254 ── veth ── 10.89.0.1 hv1: overlay(tree + layer), cgroup2, systemd
                                                      └── veth ── 10.89.0.2 hv2

systemd 257 wants cgroup v2 alone at /sys/fs/cgroup: each host sees its own subtree of the machine's cgroup2 mount.
/sys is read-only, which tells systemd that the devices are not its own: udev would give the cables other addresses.
"""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.commands import run_program
from dwcp_migrate.lab.hosts.processes import ProcessId, identify_process, launch_announced
from dwcp_migrate.lab.images import cache
from dwcp_migrate.lab.images.tree import DEBIAN_13, obtain_tree
from dwcp_migrate.lab.images.tree import recipe_digest as tree_key

PACKAGES: Final = ("python3-apt",)
"""Beyond the tree's: what Ansible's package module needs on its targets, and Debian's installer leaves there."""

NETWORK: Final = "10.89.0"
CONTROLLER: Final = f"{NETWORK}.254"
BOOT_S_MAX: Final = 90.0
"""Three seconds on an idle machine."""

LAYER_S_MAX: Final = 600.0
"""Five seconds with a near mirror."""

REMOVE_S_MAX: Final = 10.0

LAYER: Final = r"""
tree=$1 into=$2
shift 2
mkdir "$into/upper" "$into/work" "$into/root"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$into/upper,workdir=$into/work" "$into/root"
mount -t proc proc "$into/root/proc"
cp /etc/resolv.conf "$into/root/etc/resolv.conf"
apt-config dump Acquire::http > "$into/root/etc/apt/apt.conf.d/90build"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
chroot "$into/root" apt-get -qq -o APT::Sandbox::User=root update
chroot "$into/root" apt-get -qq -y -o APT::Sandbox::User=root install --no-install-recommends "$@"
rm -rf "$into/root/etc/apt/apt.conf.d/90build" "$into/root"/var/lib/apt/lists/* "$into/root/etc/resolv.conf"
umount -R "$into/root"
"""

SETUP: Final = r"""
lower=$1 directory=$2 name=$3
read -r pid rest < /proc/self/stat
hostname "$name"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$directory/upper,workdir=$directory/work" "$directory/root"
cd "$directory/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${device%:*}" c 1 "${device#*:}"
done
mknod -m 666 dev/tty c 5 0
mknod -m 666 dev/net/tun c 10 200
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . mnt
cd /
umount -l /mnt
echo "$pid"
exec env -i container=dwcp-lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd > /dev/null 2>&1 < /dev/null
"""

NAMESPACES: Final = ("net", "mnt", "uts", "ipc", "pid", "cgroup")

SSHD: Final = "PermitRootLogin prohibit-password\nUseDNS no\n"


@dataclass(frozen=True, slots=True)
class BootedHost:
    """One booted hypervisor.

    Attributes:
        init: its PID 1, as seen from outside.
    """

    name: str
    address: str
    directory: Path
    init: ProcessId
    cgroup: Path

    @property
    def root(self) -> Path:
        """Its root directory as this machine sees it, as long as it runs."""
        return Path("/proc") / str(self.init.pid) / "root"

    def inside(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs a program in there."""
        proc = Path("/proc") / str(self.init.pid)
        enter = [f"--{'mount' if kind == 'mnt' else kind}={proc / 'ns' / kind}" for kind in NAMESPACES]
        clean = ["env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
        return ["nsenter", *enter, f"--root={proc / 'root'}", "--wdns=/", *clean, *argv]

    def run(self, *argv: str, check: bool = True, timeout_s: float = BOOT_S_MAX) -> subprocess.CompletedProcess[str]:
        """Run a program in there, to its end.

        Args:
            *argv: the program and its arguments.
            check: raise when it exits with another code than 0.
            timeout_s: longest run in seconds.

        Raises:
            LabError: it failed, or took too long.
        """
        return run_program(self.inside(argv), check=check, timeout_s=timeout_s)


@dataclass(slots=True)
class BootedFleet:
    """Booted hypervisors and the controller's network namespace beside them.

    Attributes:
        key_file: private key that lets the controller in as root.
    """

    directory: Path
    network: ProcessId
    key_file: Path
    hosts: list[BootedHost] = field(default_factory=list)

    def beside(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs a program of this machine where it reaches the hosts."""
        return ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", *argv]

    def close(self) -> None:
        """End all of it and remove what is left. Raises LabError when something does not go."""
        with ExitStack() as stack:  # each step runs, whatever becomes of the others
            stack.callback(shutil.rmtree, self.directory)
            stack.callback(self.network.end, grace_s=0)
            for host in self.hosts:
                stack.callback(_remove_cgroup, host.cgroup)
                stack.callback(host.init.end, grace_s=0)


def lower_layers(suite: str = DEBIAN_13) -> str:
    """Return overlayfs' `lowerdir` of booted hypervisors of a Debian release, building the layer once a machine."""
    tree = obtain_tree(suite).root
    made = cache.entry("booted", cache.digest(tree_key(suite), LAYER, *PACKAGES), lambda into: _build_layer(tree, into))
    return f"{made / 'upper'}:{tree}"


def _build_layer(tree: Path, directory: Path) -> None:
    isolated = ["unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c", LAYER, "layer"]
    run_program([*isolated, str(tree), str(directory), *PACKAGES], timeout_s=LAYER_S_MAX)


def boot(directory: Path, names: Sequence[str], suite: str = DEBIAN_13) -> BootedFleet:
    """Boot hypervisors and wait until each can be logged in to by ssh.

    Args:
        directory: for all that they write; must not exist yet and is removed by `BootedFleet.close`.
        names: their host names.
        suite: the Debian release that they run.

    Raises:
        LabError: a host does not come up; its own words are in the error.
    """
    directory.mkdir(parents=True)
    lab_id = uuid.uuid4().hex
    fleet = BootedFleet(directory, _network(directory, lab_id), directory / "key")
    try:
        run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(fleet.key_file)])
        addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 1)}
        for name in names:
            fleet.hosts.append(_host(fleet, name, addresses, lab_id, lower_layers(suite)))
        for host in fleet.hosts:
            _wait(host)
    except BaseException:
        fleet.close()
        raise
    return fleet


def _network(directory: Path, lab_id: str) -> ProcessId:
    """Make the controller's network namespace with its bridge."""
    script = (
        f"ip link set lo up; ip link add br0 type bridge; ip address add {CONTROLLER}/24 dev br0; "
        "ip link set br0 up; echo $$; exec sleep infinity > /dev/null"
    )
    _, said = launch_announced(["unshare", "--net", "sh", "-euc", script], log=directory / "network.log", lab_id=lab_id)
    if not said.isdigit():
        raise LabError(f"cannot make the controller's network: {(directory / 'network.log').read_text()}")
    return identify_process(int(said))


def _host(fleet: BootedFleet, name: str, addresses: dict[str, str], lab_id: str, layers: str) -> BootedHost:
    directory = fleet.directory / name
    for part in ("upper", "work", "root"):
        (directory / part).mkdir(parents=True)
    _write_settings(directory / "upper", name, addresses, fleet.key_file.with_suffix(".pub").read_text())
    cgroup = _cgroup2() / f"dwcp-{lab_id[:12]}-{name}"
    cgroup.mkdir()
    # The shell joins the control group first, so that the new cgroup namespace is rooted in it.
    enter = f'echo $$ > "{cgroup}/cgroup.procs"; exec "$@"'
    unshare = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child"]
    setup = ["--propagation", "private", "sh", "-eu", "-c", SETUP, "setup", layers, str(directory), name]
    log = directory / "setup.log"
    _, said = launch_announced(["sh", "-euc", enter, "enter", *unshare, *setup], log=log, lab_id=lab_id)
    if not said.isdigit():
        raise LabError(f"cannot make host {name}: {log.read_text().strip()}")
    host = BootedHost(name, addresses[name], directory, identify_process(int(said)), cgroup)
    _connect(fleet, host)
    return host


def _connect(fleet: BootedFleet, host: BootedHost) -> None:
    """Lay the cable from the bridge to the host."""
    add = ["ip", "link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", str(host.init.pid)]
    run_program(fleet.beside(add))
    run_program(fleet.beside(["ip", "link", "set", host.name, "master", "br0", "up"]))
    namespace = ["nsenter", f"--net=/proc/{host.init.pid}/ns/net"]
    run_program([*namespace, "ip", "address", "add", f"{host.address}/24", "dev", "eth0"])
    run_program([*namespace, "ip", "link", "set", "eth0", "up"])


def _write_settings(upper: Path, name: str, addresses: dict[str, str], public_key: str) -> None:
    hosts = "".join(f"{address}\t{other}\n" for other, address in addresses.items())
    files = {
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1\tlocalhost\n{hosts}",
        "etc/libvirt/libvirtd.conf": f'host_uuid = "{uuid.uuid4()}"\n',
        "etc/ssh/sshd_config.d/lab.conf": SSHD,
        "root/.ssh/authorized_keys": public_key,
    }
    for path, content in files.items():
        (upper / path).parent.mkdir(parents=True, exist_ok=True)
        (upper / path).write_text(content)
    (upper / "root").chmod(0o700)
    (upper / "root/.ssh").chmod(0o700)


def _wait(host: BootedHost) -> None:
    """Wait until systemd has started what it starts; `degraded` is well enough for namespaces without modules."""
    host.run("timeout", str(BOOT_S_MAX), "sh", "-c", "until test -S /run/systemd/private; do sleep 0.1; done")
    state = host.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
    if state not in {"running", "degraded"}:
        raise LabError(f"{host.name} did not boot: {state}")
    host.run("systemctl", "is-active", "ssh.service")


def _cgroup2() -> Path:
    """Return where this machine has cgroup2 mounted.

    Raises:
        LabError: nowhere.
    """
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise LabError("no cgroup2 is mounted", hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")


def _remove_cgroup(cgroup: Path) -> None:
    """End what is left in a control group and remove it, innermost first.

    Raises:
        LabError: processes are still in it after `REMOVE_S_MAX` (stuck in the kernel).
    """
    (cgroup / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + REMOVE_S_MAX
    while "populated 1" in (cgroup / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise LabError(f"processes in {cgroup} do not end")
        time.sleep(0.01)  # killed processes leave within milliseconds; cgroup.events has no blocking read
    for path, _, _ in os.walk(cgroup, topdown=False):
        Path(path).rmdir()
