import os
import subprocess
import sys
from pathlib import Path

import pytest

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.hosts import service

SERVICE = """\
[Service]
# a comment = nothing
LimitNOFILE=4096
LimitCORE=0
LimitNICE=-10
UMask=0077
OOMScoreAdjust=300
AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN CAP_CHOWN
PrivateTmp=yes
"""

USER = service.user_of("10.77.0.9")


def test_the_units_settings_are_read_from_it() -> None:
    unit = service.parse_unit(SERVICE)
    assert unit.capabilities == ("CAP_NET_ADMIN",)
    assert unit.bounding == ("CAP_NET_ADMIN", "CAP_CHOWN")
    assert unit.limits == {"nofile": 4096, "core": 0, "nice": 30}
    assert (unit.umask, unit.oom_score_adjust, unit.hidden) == ("0077", "300", ("/tmp", "/var/tmp"))  # noqa: S108


def test_a_unit_that_lacks_what_the_lab_goes_by_is_refused_with_its_name() -> None:
    with pytest.raises(LabError, match="UMask"):
        service.parse_unit(SERVICE.replace("UMask=0077\n", ""))


def test_the_shipped_unit_says_all_that_the_lab_goes_by() -> None:
    assert service.parse_unit(service.UNIT.read_text()).capabilities == ("CAP_NET_ADMIN",)


def test_hosts_have_users_of_their_own() -> None:
    assert service.user_of("10.77.0.1") + 1 == service.user_of("10.77.0.2")


def test_what_lies_below_another_path_is_not_shown_twice(tmp_path: Path) -> None:
    assert service.outermost([tmp_path / "a" / "b", tmp_path / "a", tmp_path / "c"]) == [tmp_path / "a", tmp_path / "c"]


def test_a_program_below_a_closed_home_is_readable_where_the_home_is_made_anew(tmp_path: Path) -> None:
    home, checkout = tmp_path / "home", tmp_path / "home" / "checkout"
    checkout.mkdir(parents=True, mode=0o755)
    home.chmod(0o700)
    assert service.is_readable([checkout], [str(tmp_path.anchor)])
    assert not service.is_readable([checkout], [])
    checkout.chmod(0o700)
    assert not service.is_readable([checkout], [str(tmp_path.anchor)])


def test_a_confined_program_has_the_units_rights_and_no_more(tmp_path: Path) -> None:
    host = tmp_path / "host"
    for part in ("run", "agent/state", "upper/etc"):
        (host / part).mkdir(parents=True)
    for file in ("hosts", "resolv.conf"):
        (host / "upper" / "etc" / file).write_text("10.77.0.9 hv9\n")
    for part in ("run", "agent/state"):
        os.chown(host / part, USER, USER)
    tried = f"touch {host}/run/mine {host}/agent/state/mine; touch {host}/agent/not; cat /etc/hosts /proc/self/status"
    unit = service.parse_unit(service.UNIT.read_text())
    command = service.confined(["sh", "-c", tried], unit, host, USER, [103])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert status["Uid"].split()[0] == str(USER), done
    assert status["CapEff"] == status["CapBnd"]
    assert int(status["CapEff"], 16) & ~(1 << 2) == 1 << 12  # CAP_NET_ADMIN; and to read a checkout that is closed
    assert status["NoNewPrivs"] == "1"
    assert "10.77.0.9 hv9" in done.stdout
    assert (host / "run" / "mine").exists()
    assert (host / "agent" / "state" / "mine").exists()
    assert not (host / "agent" / "not").exists()
    assert Path(sys.prefix).exists()
