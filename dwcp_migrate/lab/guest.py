"""Guests of the lab: domains that check their own memory, so that a migration that damages it is found.

The rule here: a guest's reports are read from its console only, and count for the host on which they were written.
`wait_healthy` waits for a complete check of all pages that began after the call, so that earlier checks do not count.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from xml.sax.saxutils import escape

import msgspec

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.hosts.hypervisor import CONSOLE_DIRECTORY, DISK_DIRECTORY, IMAGE_DIRECTORY, Hypervisor
from dwcp_migrate.lab.images import build

POLL_S: Final = 0.1
"""A guest reports once a second; this adds a tenth at most."""

BOOT_S_MAX: Final = 300.0
"""10 s on two busy cores (TCG), the programs' guest 60 s; many times that where builds run beside it."""

REPORT: Final = re.compile(
    r"^pages: seq=(\d+) mono_ms=(\d+) pages=(\d+) checked=(\d+) passes=(\d+) dirtied=(\d+) errors=(\d+)\r?$",
    re.MULTILINE,
)
DEAD: Final = re.compile(r"Kernel panic|^Traceback|^pages: no memory", re.MULTILINE)
"""Last words of a guest that will report no more."""

TAIL_BYTES: Final = 4096
"""Several reports; the newest is in it however the console was cut."""


@dataclass(frozen=True, slots=True)
class GuestMix:
    """Percent of the guest's pages by kind; see guest/pages.c.

    The default is what measured guests come near to: a fifth zero, the rest mostly text and records.
    """

    zero: int = 20
    random: int = 20
    text: int = 25
    duplicate: int = 10
    records: int = 25

    def __post_init__(self) -> None:
        if sum((self.zero, self.random, self.text, self.duplicate, self.records)) != 100:  # noqa: PLR2004 - percent
            raise LabError("the shares of a guest's pages must add up to 100 percent")


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """Options of a guest.

    Attributes:
        name: the domain's name.
        memory_mib: its memory; kernel and programs take about 60 MiB of it.
        fill_mib: memory filled with checked pages.
        mix: of what.
        dirty_pages_per_s: how many pages are changed, 128 bytes each. Stock migration over a lossy link carries
            about 350 pages/s; beyond that it never ends.
        hot_percent: share of the pages that are ever changed.
        check_pages_per_s: how many pages are checked; 4000 take a fifth of a core.
        seed: of the contents.
        disk_mib: size of its disk (for `--copy-storage-all`), 0 for none.
        workload: `pages` proves every page (guest/pages.c); `programs` fills memory with real programs
            (guest/programs.py), for realistic streams: give it 512 MiB or more. There `dirty_pages_per_s` are steps.
    """

    name: str = "guest"
    memory_mib: int = 256
    fill_mib: int = 160
    mix: GuestMix = field(default_factory=GuestMix)
    dirty_pages_per_s: int = 100
    hot_percent: int = 20
    check_pages_per_s: int = 4000
    seed: int = 1
    disk_mib: int = 0
    workload: Literal["pages", "programs"] = "pages"


class GuestReport(msgspec.Struct, frozen=True):
    """One line of the guest's console.

    Attributes:
        seq: number of the line since boot.
        mono_ms: the guest's monotonic clock.
        pages: checked pages.
        checked: page checks since boot.
        passes: complete checks of all pages since boot.
        dirtied: changes since boot.
        errors: slots found wrong, summed over all checks.
    """

    seq: int
    mono_ms: int
    pages: int
    checked: int
    passes: int
    dirtied: int
    errors: int


class LabGuest:
    """A guest of a lab.

    Args:
        options: what it is made with.
    """

    def __init__(self, options: GuestOptions) -> None:
        self.options = options
        self.name = options.name

    def start(self, host: Hypervisor) -> None:
        """Create the domain on a host and wait until its memory is filled and its first report is there.

        Raises:
            LabError: libvirt refuses, or the guest does not come up in time; its console's end is in the error.
        """
        if self.options.disk_mib:
            self.make_disk(host)
        self.define(host)
        self.wait_report(host, timeout_s=BOOT_S_MAX)

    def define(self, host: Hypervisor) -> None:
        """Create the domain on a host and do not wait for it to come up.

        Raises:
            LabError: libvirt refuses.
        """
        host.console(self.name).unlink(missing_ok=True)
        definition = host.run_directory / f"{self.name}.xml"
        definition.write_text(domain_xml(self.options))
        host.virsh("create", f"/run/dwcp-migrate/{definition.name}")

    def make_disk(self, host: Hypervisor) -> None:
        """Make the guest's disk on a host (before a `--copy-storage-all` the destination needs one of its size too)."""
        path = f"{DISK_DIRECTORY}/{self.name}.raw"
        host.run(["qemu-img", "create", "-q", "-f", "raw", path, f"{self.options.disk_mib}M"])

    def destroy(self, *hosts: Hypervisor) -> None:
        """Destroy the domain on whichever of these hosts has it."""
        for host in hosts:
            if self.name in host.domains():
                host.virsh("destroy", self.name)

    def running_on(self, *hosts: Hypervisor) -> list[str]:
        """Return the names of the hosts on which the guest runs (not merely exists, paused)."""
        return [
            host.name for host in hosts if self.name in host.virsh("list", "--name", "--state-running").stdout.split()
        ]

    def report(self, host: Hypervisor) -> GuestReport | None:
        """Return the newest report that was written on this host, None where there is none."""
        return last_report(host.console(self.name))

    def wait_report(
        self, host: Hypervisor, *, after: GuestReport | None = None, timeout_s: float = 30.0
    ) -> GuestReport:
        """Wait for a report on a host.

        Args:
            host: on whose console it is written.
            after: only a later report counts; None takes any.
            timeout_s: longest wait in seconds.

        Raises:
            LabError: none came in time, or the guest found wrong memory.
        """
        for _ in _until(timeout_s):
            report = self.report(host)
            if report is not None and (after is None or report.seq > after.seq):
                return self._checked(report, host)
            if DEAD.search(_tail(host.console(self.name))):
                break
        raise LabError(
            f"no report of {self.name} on {host.name} within {timeout_s:.0f} s: {_tail(host.console(self.name))}"
        )

    def wait_healthy(self, host: Hypervisor, *, timeout_s: float = 120.0) -> GuestReport:
        """Wait until the guest has checked every page of its memory, beginning after this call.

        Args:
            host: on which it runs.
            timeout_s: longest wait in seconds, for its first report and for the check each.

        Raises:
            LabError: it found wrong memory, or did not finish in time.
        """
        first = self.wait_report(host, after=self.report(host), timeout_s=timeout_s)
        for _ in _until(timeout_s):
            report = self._checked(self.report(host) or first, host)
            if report.passes >= first.passes + 2:  # the pass under way at the call does not count
                return report
        raise LabError(f"{self.name} on {host.name} did not check all its memory within {timeout_s:.0f} s")

    def _checked(self, report: GuestReport, host: Hypervisor) -> GuestReport:
        if report.errors:
            wrong = [line for line in _tail(host.console(self.name)).splitlines() if "WRONG" in line]
            raise LabError(f"{self.name} on {host.name} found {report.errors} wrong slots in its memory: {wrong[:3]}")
        return report


def last_report(console: Path) -> GuestReport | None:
    """Return the newest whole report in a console's file."""
    found = REPORT.findall(_tail(console))
    return GuestReport(*map(int, found[-1])) if found else None


def domain_xml(options: GuestOptions) -> str:
    """Return the domain's definition: TCG, no firmware disk, one serial console, a disk if asked for."""
    mix = options.mix
    command_line = (
        "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on "
        f"pages.fill={options.fill_mib} pages.seed={options.seed} pages.dirty={options.dirty_pages_per_s} "
        f"pages.check={options.check_pages_per_s} pages.hot={options.hot_percent} "
        f"pages.mix={mix.zero},{mix.random},{mix.text},{mix.duplicate},{mix.records}"
        f"{'' if options.workload == 'pages' else ' rootfstype=ramfs'}"  # tmpfs takes no more than half of the memory
    )
    disk = (
        f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='{DISK_DIRECTORY}/{escape(options.name)}.raw'/>
      <target dev='vda' bus='virtio'/>
    </disk>"""
        if options.disk_mib
        else ""
    )
    return f"""<domain type='qemu'>
  <name>{escape(options.name)}</name>
  <memory unit='MiB'>{options.memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{IMAGE_DIRECTORY}/{build.KERNEL}</kernel>
    <initrd>{IMAGE_DIRECTORY}/{build.PAGES if options.workload == "pages" else build.PROGRAMS}</initrd>
    <cmdline>{escape(command_line)}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model>qemu64</model><feature policy='require' name='rdrand'/></cpu>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>{disk}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'>
      <source path='{CONSOLE_DIRECTORY}/{escape(options.name)}.log' append='on'/>
      <target port='0'/>
    </serial>
    <console type='file'><target type='serial' port='0'/></console>
  </devices>
</domain>
"""


def _tail(console: Path) -> str:
    try:
        with console.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _until(timeout_s: float) -> Iterator[None]:
    """Yield at once and then every POLL_S until the time is over; a console is a file of QEMU's and has no events."""
    deadline = time.monotonic() + timeout_s
    while True:
        yield
        if time.monotonic() >= deadline:
            return
        time.sleep(POLL_S)
