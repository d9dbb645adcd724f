"""Two booted hypervisors, and the story of an installation on them: checked, installed, run again, upgraded, removed.

Each stage is a session fixture that builds on the one before and returns what was seen right after it, so that tests
can be run alone and in any order. Stages cost a playbook run each.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dwcp_migrate.lab.hosts import booted
from dwcp_migrate.lab.images import wheels
from dwcp_migrate.transport.io.io_thread import CARRIER_NICE
from tests.booted_guests import CONSOLE, prepare_for_guests, start_guest, wait_for_checked_memory

REPOSITORY = Path(__file__).parents[2]
ANSIBLE = REPOSITORY / "ansible"
PLAYBOOK_S_MAX = 900
NAMES = ("hv1", "hv2")


@dataclass(frozen=True)
class Run:
    """One run of a playbook: what it printed, and per host what changed and what failed."""

    output: str
    changed: dict[str, int]
    failed: dict[str, int]


@dataclass(frozen=True)
class Seen:
    """What a stage left: its run and, for each host, the answers to a few commands."""

    run: Run
    hosts: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Site:
    """The fleet and how Ansible reaches it."""

    fleet: booted.BootedFleet
    inventory: Path
    home: Path

    def play(self, playbook: str, *options: str) -> Run:
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(self.inventory),
            *options,
            playbook,
        ]
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(
            self.fleet.beside(command),
            cwd=ANSIBLE / "playbooks",
            env=environment,
            capture_output=True,
            text=True,
            timeout=PLAYBOOK_S_MAX,
            check=False,
        )
        recap = re.findall(
            r"^(\w+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", done.stdout, re.MULTILINE
        )
        run = Run(
            done.stdout + done.stderr,
            {name: int(changed) for name, changed, _, _ in recap},
            {name: int(unreachable) + int(failed) for name, _, unreachable, failed in recap},
        )
        assert done.returncode == 0, run.output[-6000:]
        assert not any(run.failed.values()), run.output[-6000:]
        return run

    def ask(self, *argv: str) -> dict[str, str]:
        """Run a command on every host; its output, whatever its exit code."""
        answers = {host.name: host.run(*argv, check=False) for host in self.fleet.hosts}
        return {name: answer.stdout + answer.stderr for name, answer in answers.items()}

    def seen(self, run: Run, **questions: str) -> Seen:
        """Ask every host all questions, shell lines by name."""
        answers = {question: self.ask("sh", "-c", line) for question, line in questions.items()}
        return Seen(run, {name: {question: answers[question][name] for question in questions} for name in NAMES})


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("wheelhouse") / "wheels.tar"
    with tarfile.open(file, "w") as tar:
        for wheel in wheels.directory().glob("*.whl"):
            tar.add(wheel, wheel.name)
    return file


def build_wheel(into: Path, version: str) -> Path:
    """Build the wheel of this working tree under another version."""
    source = into / "source"
    shutil.copytree(REPOSITORY / "dwcp_migrate", source / "dwcp_migrate", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    package = source / "dwcp_migrate/__init__.py"
    package.write_text(re.sub(r'(?m)^(__version__\b.*= )".*"$', rf'\g<1>"{version}"', package.read_text()))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={into}", str(source)]
    subprocess.run(pip, check=True, env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels.directory())})
    return next(into.glob("*.whl"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"), "0.1.0")


@pytest.fixture(scope="session")
def newer_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("newer"), "0.1.1")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, wheel: Path, archive: Path) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("site")
    fleet = booted.boot(base / "fleet", NAMES)
    try:
        for host in fleet.hosts:  # as on a host that filters; a table of others must survive all that the role does
            host.run("systemctl", "start", "nftables")
            host.run("nft", "add", "table", "ip", "of_libvirt")
        variables: dict[str, Any] = {
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",  # else each run looks for one
            "ansible_ssh_private_key_file": str(fleet.key_file),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            "dwcp_migrate_wheel": str(wheel),
            "dwcp_migrate_wheelhouse": str(archive),
            "dwcp_migrate_firewall": "nftables",
            "dwcp_migrate_settings": {"encoding": {"cache_bytes": 1 << 26}, "log_format": "text"},
        }
        hosts = {host.name: {"ansible_host": host.address} for host in fleet.hosts}
        inventory = base / "inventory.yml"  # JSON is YAML
        inventory.write_text(json.dumps({"dwcp_migrate": {"hosts": hosts, "vars": variables}}))
        yield Site(fleet, inventory, base)
    finally:
        fleet.close()


LISTING = "find /etc /opt /usr/local; find /run /var /usr/lib -name '*dwcp*'"
"""Other daemons keep changing what is below /var and /run; what is ours there has our name."""


@pytest.fixture(scope="session")
def before(site: Site) -> dict[str, str]:
    """What files the hosts had."""
    return site.ask("sh", "-c", LISTING)


@pytest.fixture(scope="session")
def checked(site: Site, before: dict[str, str]) -> Seen:
    """`--check` on the empty hosts."""
    del before
    return site.seen(site.play("site.yml", "--check", "--diff"), files=LISTING)


QUESTIONS = {
    "active": "systemctl is-active dwcp-migrate",
    "enabled": "systemctl is-enabled dwcp-migrate",
    "status": "dwcp-migrate status --json",
    "doctor": "dwcp-migrate doctor --json",
    "hook": "stat -c '%a %U' /etc/libvirt/hooks/qemu.d/50-dwcp-migrate",
    "key": "stat -c '%a %U %G' /etc/dwcp-migrate/tls/host.key",
    "tables": "nft list ruleset",
    "sysctl": "sysctl -n net.ipv4.tcp_slow_start_after_idle",
    "process": "systemctl show -P MainPID dwcp-migrate",
    "capabilities": "grep CapEff /proc/$(systemctl show -P MainPID dwcp-migrate)/status",
    "releases": "ls /opt/dwcp-migrate/releases",
    "libvirt_starts": "systemctl show -P ExecMainStartTimestampMonotonic libvirtd",
}


@pytest.fixture(scope="session")
def installed(site: Site, checked: Seen) -> Seen:
    """The first run."""
    del checked
    run = site.play("site.yml")
    for host in site.fleet.hosts:  # the agent starts without waiting for libvirt or its peers
        host.run("sh", "-c", "until dwcp-migrate status | grep 'libvirt: *qemu:///system' ; do sleep 0.2; done")
    return site.seen(run, **QUESTIONS)


MIGRATED = "/run/migrated"


@pytest.fixture(scope="session")
def migrated(site: Site, installed: Seen) -> Seen:
    """A plain `virsh migrate` from one installed host to the other."""
    del installed
    source, destination = site.fleet.hosts
    for host in site.fleet.hosts:
        prepare_for_guests(host, site.fleet.key_file)
    start_guest(source)
    watches = [watch_for_raised_thread(host) for host in site.fleet.hosts]
    source.run("virsh", "migrate", "--live", "web1", f"qemu+ssh://{destination.name}/system", timeout_s=300)
    wait_for_checked_memory(destination)
    seen = site.seen(
        Run("", {}, {}),
        history="dwcp-migrate history --json",
        domains="virsh list --name",
        console=f"tail -n 1 {CONSOLE}",
        metrics="python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:7803/metrics\").read().decode())'",
        journal="journalctl -u dwcp-migrate --no-pager",
        may_raise="systemctl show -P LimitNICE dwcp-migrate",
        calls="systemctl show -P SystemCallFilter dwcp-migrate",
        can_raise="awk '/Max nice/ {print $4}' /proc/$(systemctl show -P MainPID dwcp-migrate)/limits",
    )
    for host, watch in zip(site.fleet.hosts, watches, strict=True):
        (host.root / MIGRATED.removeprefix("/")).touch()
        seen.hosts[host.name]["raised"], _ = watch.communicate(timeout=60)
    destination.run("virsh", "destroy", "web1")
    return seen


def watch_for_raised_thread(host: booted.BootedHost) -> subprocess.Popen[str]:
    """Print the first thread of a data process that goes before others, if there is one before the migration ends."""
    look = f"ps -eLo ni,args | grep -e '^ *{CARRIER_NICE} .*dataplane.worker'"
    line = f"until {look} || test -e {MIGRATED}; do sleep 0.1; done"
    return subprocess.Popen(host.inside(["sh", "-c", line]), stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="session")
def again(site: Site, migrated: Seen) -> Seen:
    """The second run."""
    del migrated
    return site.seen(site.play("site.yml"), **QUESTIONS)


@pytest.fixture(scope="session")
def upgraded(site: Site, again: Seen, newer_wheel: Path) -> Seen:
    """A newer wheel on one of the two hosts, as a roll-out begins."""
    del again
    run = site.play("upgrade.yml", "--limit", NAMES[0], "-e", f"dwcp_migrate_wheel={newer_wheel}")
    return site.seen(run, **QUESTIONS)


@pytest.fixture(scope="session")
def removed(site: Site, upgraded: Seen) -> Seen:
    """Uninstalled."""
    del upgraded
    return site.seen(
        site.play("uninstall.yml"),
        files=LISTING,
        user="getent passwd dwcp-migrate; getent group dwcp-migrate",
        tables="nft list ruleset",
        unit="systemctl cat dwcp-migrate.service",
        processes="ps -C dwcp-migrate -o pid=",
        libvirt="virsh version",
    )
