"""The judgement of `dwcp-migrate doctor` about memory for migrations."""

from dwcp_migrate.api.schema import MemoryUse
from dwcp_migrate.cli.host.check import Check, advised_check
from dwcp_migrate.units import format_bytes


def memory(use: MemoryUse) -> Check:
    """Judge whether one more migration could be accelerated now."""
    free = use.sessions_max > use.sessions or not use.budget_bytes  # an agent of an older version does not say
    granted = f"{format_bytes(use.granted_bytes)} of {format_bytes(use.budget_bytes)} granted"
    return advised_check(
        "memory",
        hold=free,
        what=f"{granted}, migrations accelerated: {use.sessions} now, {use.sessions_max} at most",
        why="sessions take a fifth at most of what the host has to spare; what there is no memory for is unaccelerated",
        remedy="wait for those that run, free memory on this host, or raise policy.memory_bytes_max and sessions_max",
    )
