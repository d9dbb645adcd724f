"""The files that make a Debian tree a hypervisor of the lab: pure functions from names to file contents.

The rule here: everything stays as Debian ships it, except for three things that the lab needs: a host UUID of its own
(libvirt refuses to migrate to the same host), listening without authentication on the lab's own network, and no
confinement (there is no systemd, no AppArmor and no cgroup in here).
"""

from collections.abc import Mapping
from dataclasses import dataclass

LIBVIRT_GROUP: str = "libvirt"
"""Group whose members may use libvirt's socket, as Debian ships it; agents are."""

LIBVIRTD: str = """\
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
host_uuid = "{host_uuid}"
"""

QEMU: str = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
"""`stdio_handler = "file"`: QEMU writes its log and the guest's console itself, no virtlogd in between."""

WITHOUT_KEEPALIVE: str = "keepalive_interval = -1\n"
"""In libvirtd.conf for the connections that it takes, in qemu.conf for those that it makes."""

SSH_CLIENT: str = """\
Host *
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""

SSHD: str = """\
ListenAddress {address}
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
"""


@dataclass(frozen=True, slots=True)
class SshKey:
    """The key pair that root has on all hosts of one lab.

    Attributes:
        private: OpenSSH format.
        public: one line.
    """

    private: str
    public: str


def files(
    name: str, addresses: Mapping[str, str], host_uuid: str, key: SshKey, *, keepalive: bool = True
) -> dict[str, str]:
    """Return path (relative to the root) and content of each file that makes this host.

    Args:
        name: the host's name.
        addresses: all hosts' names and addresses on the WAN.
        host_uuid: what its libvirtd says that it runs on.
        key: lets root go from host to host.
        keepalive: libvirt's, as shipped; without it a connection of libvirt's lives as long as TCP lets it.
    """
    added = "" if keepalive else WITHOUT_KEEPALIVE
    lines = "".join(f"{address}\t{host}\n" for host, address in addresses.items())
    return {
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1\tlocalhost\n{lines}",
        "etc/resolv.conf": "",
        "etc/libvirt/libvirtd.conf": LIBVIRTD.format(host_uuid=host_uuid) + added,
        "etc/libvirt/qemu.conf": QEMU + added,
        "etc/ssh/sshd_config.d/lab.conf": SSHD.format(address=addresses[name]),
        "root/.ssh/config": SSH_CLIENT,
        "root/.ssh/id_ed25519": key.private,
        "root/.ssh/authorized_keys": key.public,
    }


def account(user: int) -> dict[str, str]:
    """Return the lines that an installation adds to a host's accounts: libvirtd asks them who is calling.

    Args:
        user: number of the agent's user and of its group.
    """
    name = "dwcp-migrate"
    return {
        "etc/passwd": f"{name}:x:{user}:{user}::/nonexistent:/usr/sbin/nologin\n",
        "etc/group": f"{name}:x:{user}:\n",
    }
