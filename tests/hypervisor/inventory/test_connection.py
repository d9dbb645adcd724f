"""Opening a connection to a libvirtd: what answers, what refuses, and what says nothing."""

import socket

import libvirt
import pytest

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory import connection
from dwcp_migrate.hypervisor.inventory.libvirt_hypervisors import LibvirtHypervisors


def test_a_libvirtd_that_accepts_and_says_nothing_is_given_up_after_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OPEN_S_MAX", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"qemu+tcp://127.0.0.1:{silent.getsockname()[1]}/system"
        with pytest.raises(HypervisorError, match="does not answer within") as told:
            LibvirtHypervisors().domains(uri)
    assert "systemctl status" in (told.value.hint or "")


def test_a_refusal_is_libvirts_own() -> None:
    with pytest.raises(libvirt.libvirtError):
        connection.open_connection("test:///nowhere/at/all")


def test_one_that_answers_is_opened() -> None:
    found = connection.open_connection("test:///default")
    assert found.getURI() == "test:///default"
    found.close()
