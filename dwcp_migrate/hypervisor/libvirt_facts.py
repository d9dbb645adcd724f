"""Libvirt's answers and events as this project's plain values (pure), by their meaning for a migration."""

from typing import Any, Final

import libvirt

from dwcp_migrate.hypervisor.base import DomainCondition, DomainEventKind, JobStatistics
from dwcp_migrate.units import KIB, MIB

LIFECYCLE: Final[dict[tuple[int, int], DomainEventKind]] = {
    (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED): "arriving",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED): "suspended",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED): "paused",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED): "unpaused",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY): "postcopy",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY): "postcopy",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED): "postcopy-failed",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED): "postcopy-failed",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED): "left",
}
"""Meaning of a lifecycle event to a migration, where it does not depend on the side."""

RESUMED: Final = (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED)
"""At the destination the domain arrived, at the source it came back."""

_CONDITIONS: Final[dict[tuple[int, int], DomainCondition]] = {
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION): "migrating",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP): "migrating",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY): "postcopy",
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY): "postcopy",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED): "postcopy-failed",
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED): "postcopy-failed",
}

_INCOMING: Final = frozenset({libvirt.VIR_ERR_OPERATION_UNSUPPORTED, libvirt.VIR_ERR_OPERATION_INVALID})
"""Statistics of a job are to be had at the source only: libvirt from 1.3 to 8 answers with the second of these at the
destination, 9 to 11 with the first (`qemuDomainGetJobStatsInternal`)."""


def condition(state: int, reason: int) -> DomainCondition:
    """Read the state of an active domain.

    Args:
        state: virDomainState.
        reason: that libvirt gives with it; its meaning depends on the state.
    """
    found = _CONDITIONS.get((state, reason))
    if found is not None:
        return found
    return "paused" if state == libvirt.VIR_DOMAIN_PAUSED else "running"


def is_active(state: int) -> bool:
    """Whether a domain in this state (virDomainState) has a process."""
    return state not in {libvirt.VIR_DOMAIN_NOSTATE, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED}


def is_refusal_of_destination(code: int) -> bool:
    """Whether an error code of virDomainGetJobStats may mean that the domain is arriving here."""
    return code in _INCOMING


def job_statistics(raw: dict[str, Any]) -> JobStatistics | None:
    """Read libvirt's typed parameters of a job (virDomainGetJobStats); None if it is no migration.

    Libvirt gives the dirty rate in pages a second and leaves out what it does not know.
    """
    operation = raw.get("operation")
    outgoing = operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    if not outgoing and operation != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
        return None
    dirty_pages = raw.get("memory_dirty_rate", -1)
    page_bytes = raw.get("memory_page_size", 4 * KIB)
    return JobStatistics(
        outgoing=outgoing,
        memory_total_bytes=raw.get("memory_total", -1),
        memory_remaining_bytes=raw.get("memory_remaining", -1),
        memory_processed_bytes=raw.get("memory_processed", -1),
        dirty_bytes_per_s=dirty_pages * page_bytes if dirty_pages >= 0 else -1,
        iteration=raw.get("memory_iteration", -1),
        downtime_ms=raw.get("downtime", -1),
        elapsed_ms=raw.get("time_elapsed", -1),
        success=bool(raw["success"]) if "success" in raw else None,
        error=str(raw.get("errmsg", "")),
    )


def dirty_bytes_per_s(statistics: dict[str, Any]) -> float | None:
    """Read a finished measurement of virConnectGetAllDomainStats; libvirt gives whole MiB a second."""
    if statistics.get("dirtyrate.calc_status") != libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED:
        return None
    rate = statistics.get("dirtyrate.megabytes_per_second", -1)
    return float(rate * MIB) if rate >= 0 else None


def version(number: int) -> str:
    """Write a version of libvirt's, 11003000, as people do: 11.3.0."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
