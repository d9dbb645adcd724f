"""A storage service that dials a peer in libvirt's range, where the fleet demands that every migration is agreed on."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_migrate.hypervisor.cgroups import SLICE, mount_point
from tests.agent.hosts import DESTINATION_ADDRESS, PORT, WAIT_S, Host, echoing, is_reset

Hosts = tuple[Host, Host]

SAYS = (
    "import pathlib, socket, sys\n"
    "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text('0')\n"
    "sock = socket.create_connection((sys.argv[2], int(sys.argv[3])), 20)\n"
    "sock.sendall(b'brick')\n"
    "print(sock.recv(5).decode())"
)


@pytest.fixture
def service() -> Iterator[Path]:
    """Where the control group of a service is to be made."""
    root = mount_point()
    assert root is not None, "the kernel's groups of version 2 have to be mounted for this test"
    group = root / SLICE / f"glusterd-{os.getpid()}.service"
    is_first = not group.parent.exists()
    yield group
    group.rmdir()
    if is_first:
        with contextlib.suppress(OSError):  # another test of the kind made a group meanwhile
            group.parent.rmdir()


def dial(source: Host, group: Path) -> str:
    command = source.namespace.command(sys.executable, "-c", SAYS, str(group), DESTINATION_ADDRESS, str(PORT))
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S).stdout.strip()


def test_it_is_carried_at_once_and_not_redirected_later(hosts: Hosts, service: Path) -> None:
    source, destination = hosts
    source.tables["coordination"] = {"require": True, "voters": ["source.lab", "destination.lab"]}
    source.start()
    service.mkdir(parents=True)
    with echoing(destination.listen()):
        assert dial(source, service) == "brick"
        source.wait(lambda _: "@foreign2" in source.namespace.run("nft", "list", "ruleset"))
        caught = source.status().intercept.rules[0].packets
        assert dial(source, service) == "brick"
        assert source.status().intercept.rules[0].packets == caught
        with contextlib.suppress(ConnectionResetError):  # it may come before the connect returns
            assert is_reset(source.connect(DESTINATION_ADDRESS))  # a migration, which nobody agreed to
    assert {record.passthrough_reason for record in source.history()} <= {"foreign", ""}
