"""QEMU's own TLS: the agents cannot read it, and carry it as it is."""

import shutil
from pathlib import Path

import pytest

from dwcp_migrate import pki as certificates
from tests.e2e.world import World, migrate

pytestmark = pytest.mark.lab


def install_certificates(world: World, directory: Path) -> None:
    """Give each host what libvirt's migration TLS looks for in /etc/pki/qemu."""
    certificates.create_authority(directory, name="QEMU's own")
    for host in world.lab.hypervisors:
        certificate, key = certificates.issue(directory, host.name)
        pki = host.namespace.root / "etc/pki/qemu"
        pki.mkdir(parents=True, exist_ok=True)
        shutil.copy(directory / "ca.pem", pki / "ca-cert.pem")
        for use in ("server", "client"):
            shutil.copy(certificate, pki / f"{use}-cert.pem")
            shutil.copy(key, pki / f"{use}-key.pem")


def test_a_tls_migration_is_carried_as_opaque_bytes(world: World, tmp_path: Path) -> None:
    install_certificates(world, tmp_path)
    out, into = migrate(world, "--tls")
    assert set(out.connections) == {"tls"}
    assert out.counters.opaque_bytes == out.counters.raw_bytes == into.counters.raw_bytes
