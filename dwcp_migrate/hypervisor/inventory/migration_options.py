"""Options of one live migration, as `virsh migrate` has them, and libvirt's flags and parameters for them.

The rule here: only options that the operator named are set, and those that a migration between hosts always needs:
live, host to host, and a persistent domain stays persistent.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

CONNECTIONS_MAX: Final = 255
"""Parallel connections; QEMU's `multifd-channels` is a byte."""

TimeoutAction = Literal["abort", "postcopy", "suspend"]
CopyStorage = Literal["", "all", "inc"]


class MigrationOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a migration.

    Attributes:
        copy_storage: copy local disks too: whole (`all`) or on top of a shared base (`inc`).
        migrate_disks: targets of the disks to copy (`vda`); empty copies all that are writable and not shared.
        postcopy: may be switched to postcopy.
        parallel: parallel connections, 0 for a single one.
        bandwidth_mib_s: bound of the rate, 0 for libvirt's own; `postcopy_bandwidth_mib_s` after the switch.
        tls: of QEMU's own connection.
        auto_converge: slow the guest down until it converges.
        unsafe: even where libvirt takes the disks' cache mode for unsafe.
        abort_on_error: end it where a disk fails meanwhile.
        migrate_uri: where QEMU listens on the destination; empty lets libvirt choose.
        persistent: whether it is defined on the destination and no longer on the source; `auto`: as it is now.
        timeout_s: seconds until `timeout_action`; None: the policy's, after the first pass.
        timeout_action: what then happens.
    """

    copy_storage: CopyStorage = ""
    migrate_disks: tuple[str, ...] = ()
    postcopy: bool = False
    parallel: Annotated[int, Meta(ge=0, le=CONNECTIONS_MAX)] = 0
    bandwidth_mib_s: Annotated[int, Meta(ge=0)] = 0
    postcopy_bandwidth_mib_s: Annotated[int, Meta(ge=0)] = 0
    tls: bool = False
    auto_converge: bool = False
    unsafe: bool = False
    abort_on_error: bool = False
    migrate_uri: str = ""
    persistent: Literal["auto", "yes", "no"] = "auto"
    timeout_s: Annotated[float, Meta(gt=0)] | None = None
    timeout_action: TimeoutAction = "abort"

    @property
    def copies_storage(self) -> bool:
        """Whether disks are copied that are not shared."""
        return self.copy_storage != ""


def flags(options: MigrationOptions, *, persistent: bool) -> int:
    """Libvirt's flags for `options`.

    Args:
        options: of the migration.
        persistent: whether the domain is defined on its source.
    """
    import libvirt  # a fifth of a second that only who migrates has to wait

    chosen = {
        libvirt.VIR_MIGRATE_NON_SHARED_DISK: options.copy_storage == "all",
        libvirt.VIR_MIGRATE_NON_SHARED_INC: options.copy_storage == "inc",
        libvirt.VIR_MIGRATE_POSTCOPY: options.postcopy,
        libvirt.VIR_MIGRATE_PARALLEL: options.parallel > 0,
        libvirt.VIR_MIGRATE_TLS: options.tls,
        libvirt.VIR_MIGRATE_AUTO_CONVERGE: options.auto_converge,
        libvirt.VIR_MIGRATE_UNSAFE: options.unsafe,
        libvirt.VIR_MIGRATE_ABORT_ON_ERROR: options.abort_on_error,
        libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE: (
            options.persistent == "yes" or (options.persistent == "auto" and persistent)
        ),
    }
    found: int = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
    for flag, is_set in chosen.items():
        found |= flag if is_set else 0
    return found


def parameters(options: MigrationOptions) -> dict[str, Any]:
    """Libvirt's typed parameters for `options`; what is left to libvirt is not among them."""
    import libvirt

    given: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: options.migrate_uri,
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: options.bandwidth_mib_s,
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY: options.postcopy_bandwidth_mib_s,
        libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS: options.parallel if options.parallel > 1 else 0,
        libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS: list(options.migrate_disks),
    }
    return {name: value for name, value in given.items() if value}
