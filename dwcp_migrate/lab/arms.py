"""One migration over the lab's WAN, measured: the arms that the demo and the benchmarks compare.

The rule here: all arms move the same guest, made anew from the same seed, over the same WAN with the same congestion
control, by the same command but for the flags that the arm is about. Time is what the operator waits for `virsh`,
downtime is what libvirt reports, bytes are counted on the wire (headers, retransmissions and libvirt's RPC included),
and the guest must have checked all its memory on the destination.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.hosts.agents import Changes, LabAgent
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab
from dwcp_migrate.units import MIB, PAGE_BYTES

MIGRATION_S_MAX: Final = 1800.0
CHECK_S_MIN: Final = 60.0
"""For a guest's first report of its memory; two passes over all of it, at half of its pace, come on top."""
WARM_UP_REPORTS: Final = 3
"""Seconds of changes between the fill and the migration, so that every arm meets the guest in the same state."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to migrate.

    Attributes:
        name: as in the results.
        flags: what is added to `virsh migrate --live`.
        agents: whether the agents run.
        changes: of their configuration.
        is_first: they have seen no migration yet; else they remember those of the arms before.
    """

    name: str
    flags: tuple[str, ...] = ()
    agents: bool = False
    changes: Changes = field(default_factory=dict)
    is_first: bool = True


STOCK: Final = Arm("stock")
MULTIFD_ZSTD: Final = Arm(
    "stock-multifd-zstd",
    ("--parallel", "--parallel-connections", "4", "--compressed", "--comp-methods", "zstd"),
)
ACCELERATED: Final = Arm("accelerated", agents=True)
ARMS: Final = (STOCK, MULTIFD_ZSTD, ACCELERATED)


class ArmResult(msgspec.Struct, frozen=True):
    """Result of one arm.

    Attributes:
        arm: its name.
        command: what the operator typed.
        time_s: from the command's start to its end.
        downtime_ms: the guest stood still, by libvirt's statistics of the completed job.
        wire_bytes: on the WAN, both directions, IP headers included.
        memory_bytes: of the guest.
        transferred_bytes: what QEMU sent, by its own account.
        throughput_bytes_per_s: the guest's memory over the time.
        iterations: passes over the memory.
        guest_check: `clean`, or what is wrong.
        passthrough_reason: why the agents did not accelerate it; empty when they did, or were not there.
    """

    arm: str
    command: str
    time_s: float
    downtime_ms: int
    wire_bytes: int
    memory_bytes: int
    transferred_bytes: int
    throughput_bytes_per_s: float
    iterations: int
    guest_check: str
    passthrough_reason: str = ""


Say = Callable[[str], None]


def run_arm(lab: Lab, arm: Arm, options: GuestOptions, *, say: Say) -> ArmResult:
    """Make the guest on hv1, migrate it to hv2, check it there, and destroy it.

    Args:
        lab: with at least two hosts; its agents are stopped, and started again where the arm needs them.
        arm: how to migrate.
        options: the guest.
        say: told what is going on.

    Raises:
        LabError: the guest or an agent does not start, or the migration fails.
    """
    source, destination = lab.hypervisors[:2]
    lab.stop_agents()
    if arm.agents:
        if arm.is_first:
            lab.forget_migrations()
        lab.start_agents(arm.changes)
    guest = LabGuest(options)
    say(f"{arm.name}: starting the guest ({options.memory_mib} MiB)")
    destination.console(guest.name).unlink(
        missing_ok=True
    )  # the console still holds the reports of the guest of the arm before
    try:
        guest.start(source)
        while guest.wait_report(source).seq < WARM_UP_REPORTS:
            guest.wait_report(source, after=guest.report(source))
        return _measure(lab, arm, guest, say)
    finally:
        guest.destroy(source, destination)


def _measure(lab: Lab, arm: Arm, guest: LabGuest, say: Say) -> ArmResult:
    source, destination = lab.hypervisors[:2]
    command = ["migrate", "--live", *arm.flags, guest.name, f"qemu+tcp://{destination.name}/system"]
    say(f"{arm.name}: virsh {' '.join(command)}")
    wire_before, begin = lab.wan.wire_bytes(), time.monotonic()
    source.virsh(*command, timeout_s=MIGRATION_S_MAX)
    time_s = time.monotonic() - begin
    wire_bytes = lab.wan.wire_bytes() - wire_before
    job = completed_job(destination, guest.name)
    say(f"{arm.name}: {time_s:.1f} s; the guest checks its memory")
    memory_bytes = job.get("memory_total", 0)
    return ArmResult(
        arm=arm.name,
        command=f"virsh {' '.join(command)}",
        time_s=round(time_s, 2),
        downtime_ms=job.get("downtime", -1),
        wire_bytes=wire_bytes,
        memory_bytes=memory_bytes,
        transferred_bytes=job.get("memory_processed", 0),
        throughput_bytes_per_s=round(memory_bytes / time_s),
        iterations=job.get("memory_iteration", 0),
        guest_check=_check(guest, lab.hypervisors, destination),
        passthrough_reason=passthrough_reason(lab.agents[source.name]) if arm.agents else "",
    )


def passthrough_reason(agent: LabAgent) -> str:
    """Return why a source's newest migration ran unaccelerated; empty when it was accelerated."""
    migrations = agent.get("/v1/history?limit=1")["migrations"]
    return str(migrations[0].get("passthrough_reason", "")) if migrations else "the agent saw no migration"


def completed_job(host: Hypervisor, domain: str) -> dict[str, int]:
    """Return libvirt's statistics of a domain's completed migration, numbers only, as the destination has them.

    Args:
        host: the destination.
        domain: its name.

    Returns:
        By the names of virsh's `--rawstats`: `downtime` (ms), `memory_total`, `memory_processed` (bytes) and others.
    """
    lines = host.virsh("domjobinfo", domain, "--completed", "--rawstats").stdout.splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): int(value) for key, _, value in pairs if value.strip().isdigit()}


def _check(guest: LabGuest, hosts: Sequence[Hypervisor], destination: Hypervisor) -> str:
    running = guest.running_on(*hosts)
    if running != [destination.name]:
        return f"runs on {', '.join(running) or 'no host'}"
    pages = guest.options.fill_mib * MIB / PAGE_BYTES
    two_passes_s = 2 * pages / guest.options.check_pages_per_s
    try:
        guest.wait_healthy(destination, timeout_s=CHECK_S_MIN + 2 * two_passes_s)
    except LabError as error:
        return str(error)
    return "clean"
