"""The role, run over ssh on two hypervisors with systemd, libvirtd, polkit and nftables as their own services."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ANSIBLE = Path(__file__).parents[2] / "ansible"
CAP_NET_ADMIN = 1 << 12

RAISED = "30\n"
"""RLIMIT_NICE as the kernel counts: 20 less the least nice value, -10."""

NOT_OURS = r"/etc/(((passwd|group|shadow|gshadow|subuid|subgid)-|\.pwd\.lock)|libvirt/nwfilter/.*)"
"""Files that useradd keeps of the state before, and filters that libvirtd writes when it starts."""

Seen = Any
lab = pytest.mark.lab
slow = pytest.mark.timeout(1800)
"""A stage is a playbook run; the first test of the story pays for all stages before its own."""


def added(before: str, after: str) -> set[str]:
    new = set(after.splitlines()) - set(before.splitlines())
    return {path for path in new if not re.fullmatch(NOT_OURS, path)}


def test_ansible_lint_has_no_complaint_by_its_strictest_profile(tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("ansible-lint")),
        "--offline",
        "--strict",
        "--profile",
        "production",
        "-q",
    ]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*command, "--nocolor"], cwd=ANSIBLE, env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


@lab
@slow
def test_check_mode_works_on_empty_hosts_and_leaves_them_empty(checked: Seen, before: dict[str, str]) -> None:
    assert all(checked.run.changed.values())
    for name, answers in checked.hosts.items():
        assert not added(before[name], answers["files"])


@lab
@slow
def test_the_first_run_installs_and_starts(installed: Seen) -> None:
    for name, answers in installed.hosts.items():
        assert answers["active"] == "active\n", installed.run.output
        assert answers["enabled"] == "enabled\n"
        status = json.loads(answers["status"])
        assert status["name"] == name
        assert status["intercept"]["armed"]
        assert [peer["reachable"] for peer in status["peer_views"]] == [True]


@lab
@slow
def test_libvirt_lets_the_agent_in_through_its_own_guard(installed: Seen) -> None:
    for answers in installed.hosts.values():
        checks = {check["id"]: check for check in json.loads(answers["doctor"])["checks"]}
        assert checks["libvirt"]["verdict"] == "ok", checks["libvirt"]


@lab
@slow
def test_doctor_finds_nothing_wrong_after_the_first_run(installed: Seen) -> None:
    for answers in installed.hosts.values():
        checks = json.loads(answers["doctor"])["checks"]
        assert not [check for check in checks if check["verdict"] != "ok" and check["id"] != "clock"]


@lab
@slow
def test_files_are_as_closed_as_they_can_be(installed: Seen) -> None:
    for answers in installed.hosts.values():
        assert answers["hook"] == "755 root\n"
        assert answers["key"] == "640 root dwcp-migrate\n"
        assert int(answers["capabilities"].split()[1], 16) == CAP_NET_ADMIN


@lab
@slow
def test_only_the_peer_is_let_in_by_the_firewall(installed: Seen) -> None:
    others = {"hv1": "10.89.0.2", "hv2": "10.89.0.1"}
    for name, answers in installed.hosts.items():
        assert re.findall(r"ip saddr (\S+) tcp dport 7802", answers["tables"]) == [others[name]]
        assert answers["tables"].count("jump dwcp_migrate") == 1
        assert "table ip dwcp_migrate" in answers["tables"]
        assert answers["sysctl"] == "0\n"


@lab
@slow
def test_tables_of_others_survive_every_stage(installed: Seen, again: Seen, upgraded: Seen) -> None:
    for seen in (installed, again, upgraded):
        for answers in seen.hosts.values():
            assert "table ip of_libvirt" in answers["tables"]
            assert answers["tables"].count("jump dwcp_migrate") == 1


@lab
@slow
def test_the_key_is_born_on_the_host_and_stays_there(installed: Seen, site: Any) -> None:
    kept = sorted(path.name for path in (site.home / ".dwcp-migrate/pki").iterdir())
    assert kept == ["ca.key", "ca.pem", "hv1.csr", "hv1.pem", "hv2.csr", "hv2.pem"], installed.run.output


@lab
@slow
def test_a_plain_migration_between_installed_hosts_is_accelerated(migrated: Seen) -> None:
    for name, role in (("hv1", "source"), ("hv2", "destination")):
        latest = json.loads(migrated.hosts[name]["history"])[0]
        assert (latest["role"], latest["result"], latest["domain"]) == (role, "completed", "web1"), latest
        assert not latest.get("passthrough_reason"), latest
        assert latest["counters"]["wire_bytes"] < latest["counters"]["raw_bytes"]
        assert f'dwcp_migrate_migrations_total{{result="completed",role="{role}"}} 1.0' in sorted_labels(
            migrated.hosts[name]["metrics"]
        )


@lab
@slow
def test_the_guest_runs_on_at_the_destination_with_all_its_memory(migrated: Seen) -> None:
    assert migrated.hosts["hv1"]["domains"].split() == []
    assert migrated.hosts["hv2"]["domains"].split() == ["web1"]
    assert " errors=0" in migrated.hosts["hv2"]["console"]


@lab
@slow
def test_the_unit_lets_the_link_thread_go_first_where_its_systemd_may_raise_limits(migrated: Seen) -> None:
    for answers in migrated.hosts.values():
        assert answers["may_raise"] == RAISED
        assert "setpriority" in answers["calls"].split()
        can = answers["can_raise"] == RAISED  # not where this machine's root lacks CAP_SYS_RESOURCE
        assert ("dataplane.worker" in answers["raised"]) == can


@lab
@slow
def test_the_sandbox_stops_nothing_that_the_agent_does(migrated: Seen) -> None:
    for answers in migrated.hosts.values():
        assert not re.search(r"Traceback|Operation not permitted|level=error", answers["journal"]), answers["journal"]


def sorted_labels(metrics: str) -> str:
    """Bring the labels of each sample into alphabetical order."""
    return re.sub(r"\{(.*?)\}", lambda found: "{" + ",".join(sorted(found[1].split(","))) + "}", metrics)


@lab
@slow
def test_the_second_run_changes_nothing(again: Seen, installed: Seen) -> None:
    assert again.run.changed == {"hv1": 0, "hv2": 0}, again.run.output
    for name, answers in again.hosts.items():
        assert answers["process"] == installed.hosts[name]["process"]


@lab
@slow
def test_an_upgrade_drains_and_replaces_the_agent_but_not_libvirt(upgraded: Seen, again: Seen) -> None:
    new, old = upgraded.hosts["hv1"], again.hosts["hv1"]
    assert "Drain the agent of the old release" in upgraded.run.output
    assert json.loads(new["status"])["version"] == "0.1.1"
    assert new["process"] != old["process"]
    assert [release.partition("-")[0] for release in new["releases"].split()] == ["0.1.0", "0.1.1"]
    assert new["libvirt_starts"] == old["libvirt_starts"]


@lab
@slow
def test_hosts_before_and_after_the_upgrade_reach_each_other(upgraded: Seen, again: Seen) -> None:
    assert upgraded.hosts["hv2"]["process"] == again.hosts["hv2"]["process"]
    versions = {}
    for name, answers in upgraded.hosts.items():
        (peer,) = json.loads(answers["status"])["peer_views"]
        assert peer["reachable"], peer
        versions[name] = peer["version"]
    assert versions == {"hv1": "0.1.0", "hv2": "0.1.1"}


@lab
@slow
def test_uninstalling_leaves_nothing(removed: Seen, before: dict[str, str]) -> None:
    for name, answers in removed.hosts.items():
        assert not added(before[name], answers["files"])
        assert "dwcp" not in answers["user"] + answers["tables"]
        assert answers["processes"] == ""
        assert "No files found for dwcp-migrate.service" in answers["unit"]
        assert "Running hypervisor: QEMU" in answers["libvirt"]
