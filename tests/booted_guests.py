"""Guests on booted hypervisors: what a host needs for them, one that is started, and that its memory was checked."""

import shutil
from pathlib import Path
from typing import Final

from dwcp_migrate.lab.guest import GuestOptions, domain_xml
from dwcp_migrate.lab.hosts.booted import BootedHost
from dwcp_migrate.lab.hosts.hypervisor import CONSOLE_DIRECTORY, IMAGE_DIRECTORY
from dwcp_migrate.lab.hosts.settings import SSH_CLIENT
from dwcp_migrate.lab.images import build

GUEST: Final = GuestOptions(name="web1", memory_mib=192, fill_mib=64)
CONSOLE: Final = f"{CONSOLE_DIRECTORY}/web1.log"


def prepare_for_guests(host: BootedHost, key_file: Path) -> None:
    """Give a host the guest's images, and let root go to the other hosts by ssh."""
    images_directory = host.root / IMAGE_DIRECTORY.removeprefix("/")
    images_directory.mkdir(parents=True)
    for name in (build.KERNEL, build.PAGES):
        shutil.copy(build.directory() / name, images_directory / name)
    (host.root / CONSOLE_DIRECTORY.removeprefix("/")).mkdir(parents=True)
    shutil.copy(key_file, host.root / "root/.ssh/id_ed25519")
    (host.root / "root/.ssh/config").write_text(SSH_CLIENT)


def start_guest(host: BootedHost) -> None:
    """Start `GUEST` and wait until it has filled its memory."""
    Path(host.root / "tmp/web1.xml").write_text(domain_xml(GUEST))
    host.run("virsh", "create", "/tmp/web1.xml")  # noqa: S108 - the booted host's own /tmp
    host.run("timeout", "300", "sh", "-c", f"until grep -q '^pages: ' {CONSOLE}; do sleep 0.2; done", timeout_s=310)


def wait_for_checked_memory(host: BootedHost) -> None:
    """Wait until the guest, arrived on a host, has looked at all of its memory there."""
    checked = r"grep -q 'pages: seq=[0-9]* .* passes=[1-9]'"
    host.run("timeout", "120", "sh", "-c", f"until {checked} {CONSOLE}; do sleep 0.2; done", timeout_s=130)
