"""Options of a migration as libvirt's flags and parameters."""

import libvirt

from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions, flags, parameters

PLAIN = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
KEPT = libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE


def test_nothing_is_chosen_that_was_not_named() -> None:
    assert flags(MigrationOptions(), persistent=False) == PLAIN
    assert parameters(MigrationOptions()) == {}


def test_a_domain_stays_persistent_unless_it_is_said_otherwise() -> None:
    assert flags(MigrationOptions(), persistent=True) == PLAIN | KEPT
    assert flags(MigrationOptions(persistent="yes"), persistent=False) == PLAIN | KEPT
    assert flags(MigrationOptions(persistent="no"), persistent=True) == PLAIN


def test_each_option_is_its_flag_and_its_parameter() -> None:
    options = MigrationOptions(
        copy_storage="inc", migrate_disks=("vda",), postcopy=True, parallel=3, bandwidth_mib_s=5, tls=True,
        auto_converge=True, unsafe=True, abort_on_error=True, migrate_uri="tcp://192.0.2.1", postcopy_bandwidth_mib_s=9,
    )  # fmt: skip
    named = ("NON_SHARED_INC", "POSTCOPY", "PARALLEL", "TLS", "AUTO_CONVERGE", "UNSAFE", "ABORT_ON_ERROR")
    expected = PLAIN
    for name in named:
        expected |= getattr(libvirt, f"VIR_MIGRATE_{name}")
    assert flags(options, persistent=False) == expected
    assert parameters(options) == {
        "migrate_uri": "tcp://192.0.2.1", "bandwidth": 5, "bandwidth.postcopy": 9, "parallel.connections": 3,
        "migrate_disks": ["vda"],
    }  # fmt: skip
    assert flags(MigrationOptions(copy_storage="all"), persistent=False) == PLAIN | libvirt.VIR_MIGRATE_NON_SHARED_DISK
