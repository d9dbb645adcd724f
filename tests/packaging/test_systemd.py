"""The unit, judged by systemd's own tools."""

import re
import subprocess
from pathlib import Path

from dwcp_migrate.agent.daemon import STOP_S_MAX
from dwcp_migrate.config import Config
from dwcp_migrate.dataplane.worker import OOM_SCORE_ADJUST
from dwcp_migrate.transport.io.io_thread import CARRIER_NICE

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "dwcp-migrate.service"
EXPOSURE_MAX = 25
"""In tenths: 2.5 of 10. libvirtd.service has 9.6."""


def section(name: str) -> dict[str, list[str]]:

    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().partition(f"[{name}]")[2].partition("\n[")[0].splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_its_exposure_stays_below_the_threshold() -> None:
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\n")
    agent.chmod(0o755)
    text = re.sub(r"/opt/dwcp-migrate/current/bin/dwcp-migrate", str(agent), UNIT.read_text())
    copy = tmp_path / UNIT.name
    copy.write_text("\n".join(line for line in text.splitlines() if not line.startswith("Documentation=")))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_only_one_capability_is_given() -> None:
    service = section("Service")
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == ["CAP_NET_ADMIN"]


def test_the_link_thread_may_raise_itself_as_far_as_it_wants_and_no_further() -> None:
    service = section("Service")
    assert service["LimitNICE"] == [str(CARRIER_NICE)]
    assert service["SystemCallFilter"][-1] == "setpriority"


def test_what_a_stop_waits_for_fits_into_the_time_to_stop() -> None:
    assert int(section("Service")["TimeoutStopSec"][0]) > STOP_S_MAX


def test_a_stop_leaves_data_processes_and_their_way_back() -> None:
    service = section("Service")
    assert service["KillMode"] == ["process"]
    assert service["RuntimeDirectoryPreserve"] == ["yes"]


def test_the_kernel_takes_every_process_of_ours_before_a_guest() -> None:
    service = section("Service")
    assert 0 < int(service["OOMScoreAdjust"][0]) < OOM_SCORE_ADJUST
    assert int(service["CPUWeight"][0]) < 100 > int(service["IOWeight"][0])


def test_no_number_of_failed_starts_keeps_it_down() -> None:
    assert section("Unit")["StartLimitIntervalSec"] == ["0"]


def test_its_directories_are_those_of_the_configuration() -> None:
    service = section("Service")
    assert f"/run/{service['RuntimeDirectory'][0]}" == str(Config().runtime_directory)
    assert f"/var/lib/{service['StateDirectory'][0]}" == str(Config().state_directory)
    assert f"/etc/{service['ConfigurationDirectory'][0]}" == str(Config().tls.ca.parent.parent)


def test_libvirt_is_neither_required_nor_bound_to() -> None:
    unit = section("Unit")
    assert not {"Requires", "BindsTo", "PartOf", "Requisite"} & set(unit)
    assert "libvirtd.service" in unit["After"][0]


def test_its_documentation_is_what_the_packages_bring() -> None:
    (named,) = section("Unit")["Documentation"]
    assert named.split() == ["man:dwcp-migrate(1)", "file:///usr/share/doc/dwcp-migrate/operations.md"]
    assert (SYSTEMD.parent / "docs/operations.md").exists()
    assert "usr/share/man/man1" in (SYSTEMD.parent / "packaging/build.py").read_text()


def test_guest_memory_cannot_reach_a_core_dump() -> None:
    assert section("Service")["LimitCORE"] == ["0"]


def test_firewalld_opens_the_default_link_port() -> None:
    assert f'port="{Config().link.port}"' in (SYSTEMD / "firewalld-dwcp-migrate.xml").read_text()
