"""The packages: built from the checkout, lintian-clean, and their whole life on booted Debian hosts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_migrate.lab.hosts import booted
from dwcp_migrate.lab.images.tree import DEBIAN_12, DEBIAN_13

REPOSITORY = Path(__file__).parents[2]
BUILD = REPOSITORY / "packaging/build.py"
FIRST, SECOND = "0.2.0", "0.2.1"
LISTING = (
    "find /etc /opt /usr /var/lib | grep -i dwcp; find /etc/libvirt/hooks; getent passwd dwcp-migrate; nft list tables"
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages of two versions."""
    into = tmp_path_factory.mktemp("packages")
    for version, *options in ((FIRST,), (SECOND, "--offline")):
        command = [sys.executable, str(BUILD), "--into", str(into), "--version", version, *options]
        subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True)
    return into


@pytest.fixture(scope="module")
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, packages: Path
) -> Iterator[booted.BootedHost]:
    """A host of a Debian release, with the packages below /srv."""
    fleet = booted.boot(tmp_path_factory.mktemp("host") / "fleet", ("hv1",), request.param)
    try:
        (one,) = fleet.hosts
        for package in packages.glob("*.deb"):
            (one.root / "srv" / package.name).write_bytes(package.read_bytes())
        yield one
    finally:
        fleet.close()


def install(host: booted.BootedHost, version: str) -> None:
    host.run("dpkg", "--install", f"/srv/dwcp-migrate_{version}_amd64.deb", timeout_s=300)


def version_of_running_agent(host: booted.BootedHost) -> str:
    host.run("sh", "-c", "until dwcp-migrate status > /dev/null; do sleep 0.2; done", timeout_s=60)
    return str(json.loads(host.run("dwcp-migrate", "status", "--json").stdout)["version"])


def test_lintian_has_no_complaint(packages: Path) -> None:
    command = [
        "lintian",
        "--allow-root",
        "--fail-on",
        "error,warning",
        str(packages / f"dwcp-migrate_{FIRST}_amd64.deb"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_package_holds_what_a_host_needs(packages: Path) -> None:
    query = ["rpm", "--query", "--list", "--package", str(packages / f"dwcp-migrate-{FIRST}-1.x86_64.rpm")]
    rpm = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    contents = ["dpkg-deb", "--contents", str(packages / f"dwcp-migrate_{FIRST}_amd64.deb")]
    listing = subprocess.run(contents, capture_output=True, text=True, check=True).stdout
    for file in (
        "/etc/dwcp-migrate/agent.toml",
        "/etc/libvirt/hooks/qemu.d/50-dwcp-migrate",
        "/usr/bin/dwcp-migrate",
        "/usr/lib/sysctl.d/90-dwcp-migrate.conf",
        "/usr/lib/systemd/system/dwcp-migrate.service",
        "/usr/share/bash-completion/completions/dwcp-migrate",
        "/usr/share/dwcp-migrate/monitoring/alerts.yml",
        "/usr/share/man/man1/dwcp-migrate.1.gz",
        "/usr/share/man/man1/dwcp-migrate-status.1.gz",
    ):
        assert file in rpm
        assert f".{file}\n" in listing


def test_the_bill_of_materials_names_every_wheel(packages: Path) -> None:
    bill = json.loads((packages / f"dwcp-migrate-{FIRST}.cdx.json").read_text())
    named = {component["name"] for component in bill["components"]}
    assert {"numpy", "zstandard", "pysyncobj", "cryptography"} <= named


@pytest.mark.parametrize("host", [DEBIAN_13, pytest.param(DEBIAN_12, marks=pytest.mark.long)], indirect=True)
def test_a_host_lives_through_install_upgrade_downgrade_removal_and_purge(host: booted.BootedHost) -> None:
    before = host.run("sh", "-c", LISTING, check=False).stdout
    libvirt = ["systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", "libvirtd"]
    started = host.run(*libvirt).stdout

    install(host, FIRST)
    assert version_of_running_agent(host) == FIRST
    assert host.run("systemctl", "is-enabled", "dwcp-migrate").stdout == "enabled\n"
    host.run("sh", "-c", "echo 'log_level = \"debug\"' >> /etc/dwcp-migrate/agent.toml")
    install(host, SECOND)
    assert version_of_running_agent(host) == SECOND
    install(host, FIRST)
    assert version_of_running_agent(host) == FIRST
    assert 'log_level = "debug"' in host.run("cat", "/etc/dwcp-migrate/agent.toml").stdout

    host.run("dpkg", "--remove", "dwcp-migrate")
    assert host.run("pgrep", "-f", "dwcp-migrate", check=False).stdout == ""
    assert 'log_level = "debug"' in host.run("cat", "/etc/dwcp-migrate/agent.toml").stdout
    host.run("dpkg", "--purge", "dwcp-migrate")
    assert host.run("sh", "-c", LISTING, check=False).stdout == before
    assert host.run(*libvirt).stdout == started
