"""`disable` and `enable`: over restarts, with the reason, and never by accident."""

from pathlib import Path

import pytest

from dwcp_migrate.agent.disablement import DISABLED_FILE, Disablement
from dwcp_migrate.errors import DwcpError
from tests.agent.hosts import DESTINATION_ADDRESS, Host, echoing, exchange

Hosts = tuple[Host, Host]


def test_it_outlives_the_agent_with_its_reason(tmp_path: Path) -> None:
    assert Disablement(tmp_path).words == ""
    Disablement(tmp_path).begin("the new switch first", now=5.0)
    again = Disablement(tmp_path)
    assert again.words == "disabled: the new switch first"
    again.end()
    assert Disablement(tmp_path).words == ""


def test_a_file_that_cannot_be_read_disables_and_says_so(tmp_path: Path) -> None:
    (tmp_path / DISABLED_FILE).write_text("{")
    assert "cannot be read" in Disablement(tmp_path).words


def test_what_cannot_be_kept_is_refused_and_not_in_force(tmp_path: Path) -> None:
    found = Disablement(tmp_path / "missing")
    with pytest.raises(DwcpError, match="No such file"):
        found.begin("", now=5.0)
    assert found.words == ""


def test_a_disabled_host_accelerates_nothing_after_a_restart_until_it_is_enabled(hosts: Hosts) -> None:
    source, destination = hosts
    for host in hosts:
        host.start()
    assert source.get("/v1/disable?reason=switch", "POST")[0] == 200
    source.stop()
    source.start()
    status = source.status()
    assert (status.state, status.disabled, status.intercept.armed) == ("draining", "disabled: switch", False)
    assert b"dwcp-migrate enable" in source.get("/v1/undrain", "POST")[1]
    assert source.status().state == "draining"
    assert source.get("/v1/enable", "POST")[0] == 200
    source.wait(lambda status: status.intercept.armed and not status.disabled)
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert source.ended()[0].passthrough_reason == ""
