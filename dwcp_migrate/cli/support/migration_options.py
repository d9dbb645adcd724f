"""`virsh migrate`'s own options on the commands that migrate."""

from collections.abc import Callable
from typing import Any, Final

import click
import msgspec

from dwcp_migrate.hypervisor.inventory.migration_options import CONNECTIONS_MAX, MigrationOptions

Decorated = Callable[..., Any]


class MigrationWords(msgspec.Struct, frozen=True, kw_only=True):
    """The options as they were typed; names are those of the command line."""

    copy_storage_all: bool = False
    copy_storage_inc: bool = False
    migrate_disks: str = ""
    postcopy: bool = False
    postcopy_bandwidth: int = 0
    parallel: bool = False
    parallel_connections: int = 0
    bandwidth: int = 0
    tls: bool = False
    auto_converge: bool = False
    unsafe: bool = False
    abort_on_error: bool = False
    persistent: bool | None = None
    timeout: float | None = None
    timeout_postcopy: bool = False
    timeout_suspend: bool = False


_COUNT: Final = click.IntRange(min=0)

OPTIONS: Final = (
    click.option("--copy-storage-all", is_flag=True, help="Copy local disks too, whole."),
    click.option("--copy-storage-inc", is_flag=True, help="Copy local disks on top of base images that are there."),
    click.option(
        "--migrate-disks", default="", metavar="LIST", help="Copy the disks with these targets only, as in vda,vdb."
    ),
    click.option("--postcopy", is_flag=True, help="Allow the switch to postcopy."),
    click.option(
        "--postcopy-bandwidth",
        type=_COUNT,
        default=0,
        metavar="MIB_S",
        help="Limit of the rate after the switch to postcopy, MiB/s.",
    ),
    click.option("--parallel", is_flag=True, help="Use several connections."),
    click.option(
        "--parallel-connections",
        type=click.IntRange(0, CONNECTIONS_MAX),
        default=0,
        metavar="N",
        help="Number of connections.",
    ),
    click.option("--bandwidth", type=_COUNT, default=0, metavar="MIB_S", help="Limit of the rate, MiB/s."),
    click.option("--tls", is_flag=True, help="Use TLS on QEMU's own connection."),
    click.option("--auto-converge", is_flag=True, help="Slow the guest down until it converges."),
    click.option("--unsafe", is_flag=True, help="Migrate even where libvirt takes a disk's cache mode for unsafe."),
    click.option("--abort-on-error", is_flag=True, help="End the migration if a disk fails meanwhile."),
    click.option(
        "--persistent/--no-persistent", default=None, help="Define it at its destination  [default: as it is now]."
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=None,
        metavar="SECONDS",
        help="For each migration; then it is aborted, or  [default: the policy's, once its first pass is over].",
    ),
    click.option("--timeout-postcopy", is_flag=True, help="... switched to postcopy (needs --postcopy)."),
    click.option("--timeout-suspend", is_flag=True, help="... its guest is paused until it has arrived."),
)


def migration_options(command: Decorated) -> Decorated:
    """Add the options; the command takes them as `**words` for `options_of`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def options_of(words: dict[str, Any], migrate_uri: str = "") -> MigrationOptions:
    """The options of a migration.

    Args:
        words: keyword arguments that `migration_options` adds.
        migrate_uri: where QEMU listens, if that is named.

    Raises:
        UsageError: two that exclude each other, or one without the other that it needs.
    """
    typed = MigrationWords(**words)
    if typed.copy_storage_all and typed.copy_storage_inc:
        raise click.UsageError("--copy-storage-all and --copy-storage-inc exclude each other")
    if typed.timeout_postcopy and typed.timeout_suspend:
        raise click.UsageError("--timeout-postcopy and --timeout-suspend exclude each other")
    if typed.timeout_postcopy and not typed.postcopy:
        raise click.UsageError("--timeout-postcopy needs --postcopy")
    if (typed.timeout_postcopy or typed.timeout_suspend) and not typed.timeout:
        raise click.UsageError("--timeout-postcopy and --timeout-suspend need --timeout SECONDS")
    return MigrationOptions(
        copy_storage="all" if typed.copy_storage_all else "inc" if typed.copy_storage_inc else "",
        migrate_disks=tuple(filter(None, typed.migrate_disks.split(","))),
        postcopy=typed.postcopy,
        parallel=typed.parallel_connections or int(typed.parallel),
        bandwidth_mib_s=typed.bandwidth,
        postcopy_bandwidth_mib_s=typed.postcopy_bandwidth,
        tls=typed.tls,
        auto_converge=typed.auto_converge,
        unsafe=typed.unsafe,
        abort_on_error=typed.abort_on_error,
        migrate_uri=migrate_uri,
        persistent="auto" if typed.persistent is None else "yes" if typed.persistent else "no",
        timeout_s=typed.timeout or None,
        timeout_action=("postcopy" if typed.timeout_postcopy else "suspend" if typed.timeout_suspend else "abort"),
    )
