"""virsh's options as they are typed."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from dwcp_migrate.cli.support.migration_options import migration_options, options_of
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions


def typed(*words: str) -> MigrationOptions:
    found: list[MigrationOptions] = []

    @click.command()
    @migration_options
    def command(**given: Any) -> None:
        found.append(options_of(given, "tcp://192.0.2.1"))

    CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    return found[0]


def test_what_is_not_named_is_left_to_libvirt() -> None:
    assert typed() == MigrationOptions(migrate_uri="tcp://192.0.2.1")
    assert typed("--timeout", "0").timeout_s is None


def test_options_mean_what_they_mean_to_virsh() -> None:
    words = "--copy-storage-all --migrate-disks vda,vdb --postcopy --postcopy-bandwidth 7 --parallel-connections 4"
    words += " --bandwidth 10 --tls --auto-converge --unsafe --abort-on-error --no-persistent"
    words += " --timeout 60 --timeout-postcopy"
    assert typed(*words.split()) == MigrationOptions(
        copy_storage="all",
        migrate_disks=("vda", "vdb"),
        postcopy=True,
        parallel=4,
        bandwidth_mib_s=10,
        postcopy_bandwidth_mib_s=7,
        tls=True,
        auto_converge=True,
        unsafe=True,
        abort_on_error=True,
        migrate_uri="tcp://192.0.2.1",
        persistent="no",
        timeout_s=60,
        timeout_action="postcopy",
    )


@pytest.mark.parametrize(
    "words",
    [
        "--copy-storage-all --copy-storage-inc",
        "--timeout 5 --timeout-postcopy",
        "--postcopy --timeout-postcopy",
        "--timeout-suspend",
        "--postcopy --timeout 5 --timeout-postcopy --timeout-suspend",
    ],
)
def test_options_that_contradict_each_other_are_refused(words: str) -> None:
    with pytest.raises(click.UsageError):
        typed(*words.split())
