"""The Debian trees that hypervisors are rooted in: 13 (libvirt 11, QEMU 10) for the lab, 12 to try packages on.

The rule here: the tree is read-only once built. Hypervisors see it as the lower layer of an overlay, so one tree serves
all labs of the machine. Everything happens in private mount namespaces; nothing stays mounted, whatever ends the build.

    mirror of the host's own apt --debootstrap--> minimal suite --apt-get in a chroot--> + libvirt, QEMU, sshd
                                                  the kernel's .deb is unpacked beside it: only guests boot it

QEMU 10 and not the host's, because QEMU 7.2's TCG corrupts guests on live migration (measured: every second time).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.commands import require_programs, run_program
from dwcp_migrate.lab.images import cache

DEBIAN_12: Final = "bookworm"
DEBIAN_13: Final = "trixie"
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
BUILD_S_MAX: Final = 1800.0
"""One minute on two cores with a near mirror (measured); a slow mirror may need far more."""

PACKAGES: Final = (
    "iproute2",
    "libvirt-clients",
    "libvirt-daemon-system",
    "nftables",
    "openssh-client",
    "openssh-server",
    "procps",
    "python3",
    "python3-libvirt",
    "python3-venv",
    "qemu-system-x86",
    "qemu-utils",
    "systemd",
    "tini",
)

INSTALL: Final = r"""
root=$1; shift
mount -t proc proc "$root/proc"
mount -t devpts devpts "$root/dev/pts" 2>/dev/null || true
cp /etc/resolv.conf "$root/etc/resolv.conf"
apt-config dump Acquire::http > "$root/etc/apt/apt.conf.d/90build"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
echo force-unsafe-io > "$root/etc/dpkg/dpkg.cfg.d/build"
printf 'path-exclude=/usr/share/%s/*\n' doc man locale > "$root/etc/dpkg/dpkg.cfg.d/small"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
chroot "$root" apt-get -qq -o APT::Sandbox::User=root update
chroot "$root" apt-get -qq -y -o APT::Sandbox::User=root install --no-install-recommends "$@"
meta=$(chroot "$root" apt-cache depends linux-image-cloud-amd64)
kernel=$(echo "$meta" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p')
mkdir "$root/kernel"
chroot "$root" sh -c "cd /kernel && apt-get -qq -o APT::Sandbox::User=root download $kernel && dpkg-deb -x *.deb ."
mv "$root"/kernel/boot/vmlinuz-* "$root/../vmlinuz"
mkdir "$root/../modules"
find "$root/kernel" -name 'virtio_blk.ko*' -exec mv {} "$root/../modules/" \;
rm -rf "$root/kernel" "$root/etc/apt/apt.conf.d/90build" "$root/usr/sbin/policy-rc.d" "$root/etc/resolv.conf"
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root"/etc/libvirt/qemu/networks/autostart/*
"""
"""Runs in a mount namespace of its own with the tree's path and the packages as arguments."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A built tree.

    Attributes:
        root: what hypervisors are rooted in.
        kernel: the guests' kernel image.
        modules: what a guest with a disk needs beyond the kernel (virtio_blk), compressed as the package has it.
    """

    root: Path
    kernel: Path
    modules: Path


def recipe_digest(suite: str = DEBIAN_13) -> str:
    """Return the digest of a suite's recipe."""
    return cache.digest(suite, INSTALL, *PACKAGES)


def obtain_tree(suite: str = DEBIAN_13) -> Tree:
    """Return the tree of a Debian release, building it first where this machine has none.

    Args:
        suite: the release's name.

    Raises:
        LabError: a tool is missing, no Debian mirror is configured, or a package could not be had.
    """
    path = cache.entry("tree", recipe_digest(suite), lambda into: _build(suite, into))
    return Tree(path / "root", path / "vmlinuz", path / "modules")


def is_built() -> bool:
    """Tell whether this machine has the tree already."""
    return (cache.directory() / f"tree-{recipe_digest()}").is_dir()


def _build(suite: str, directory: Path) -> None:
    require_programs("debootstrap", "unshare", "apt-get")
    root = directory / "root"
    isolated = ["unshare", "--mount", "--propagation", "private"]
    debootstrap = ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", suite, str(root), mirror()]
    run_program([*isolated, *debootstrap], timeout_s=BUILD_S_MAX)
    run_program([*isolated, "sh", "-eu", "-c", INSTALL, "install", str(root), *PACKAGES], timeout_s=BUILD_S_MAX)


def mirror() -> str:
    """Return the Debian mirror that the host's own apt uses.

    Raises:
        LabError: its apt knows none.
    """
    listing = run_program(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    ).stdout
    for line in listing.splitlines():
        origin, label, uri = line.split("|", 2)
        if (origin, label) == ("Debian", "Debian"):
            return uri
    raise LabError("apt has no Debian mirror in its lists", hint="run `apt-get update` on a Debian 12 or 13 host")
