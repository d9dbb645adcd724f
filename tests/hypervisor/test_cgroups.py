"""Which services the redirect leaves alone, and that the kernel does so."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_migrate.hypervisor.base import Cgroup, Exemption, Redirect
from dwcp_migrate.hypervisor.cgroups import SLICE, ForeignServices, foreign_groups, is_foreign, mount_point
from dwcp_migrate.hypervisor.intercept import NftInterceptor
from dwcp_migrate.units import PORT_MAX, PORT_MIN
from tests.hypervisor.namespace import Namespace

TO_PORT = 7801
PEER = "10.9.0.2"


@pytest.mark.parametrize("unit", ["glusterd.service", "mnt-bricks.mount", "sshd.service", "chrony.service"])
def test_mounts_and_services_of_other_kinds_are_foreign(unit: str) -> None:
    assert is_foreign(unit)


@pytest.mark.parametrize(
    "unit",
    [
        "libvirtd.service",
        "virtqemud.service",
        "kolla-nova_libvirt-container.service",
        "docker-0a1b.scope",
        "docker.service",
        "session-3.scope",
        "system-getty.slice",
        "cpu.stat",
    ],
)
def test_whatever_may_run_libvirt_or_a_guest_is_not(unit: str) -> None:
    assert not is_foreign(unit)


def test_groups_are_read_from_the_slice_with_the_kernels_numbers(tmp_path: Path) -> None:
    for unit in ("glusterd.service", "libvirtd.service", "mnt-bricks.mount"):
        (tmp_path / SLICE / unit).mkdir(parents=True)
    (tmp_path / SLICE / "cgroup.procs").touch()
    numbers = {(tmp_path / SLICE / unit).stat().st_ino for unit in ("glusterd.service", "mnt-bricks.mount")}
    assert foreign_groups(tmp_path) == {Cgroup(2, number) for number in numbers}


def test_a_host_without_such_a_tree_has_none(tmp_path: Path) -> None:
    assert foreign_groups(tmp_path) == frozenset()
    assert foreign_groups(None) == frozenset()
    (tmp_path / "mounts").write_text("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n")
    assert mount_point(tmp_path / "mounts") is None
    (tmp_path / "mounts").write_text("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n")
    assert mount_point(tmp_path / "mounts") == Path("/sys/fs/cgroup")


@pytest.fixture
def group() -> Iterator[tuple[Path, Cgroup]]:
    """A control group below that of this process."""
    root = mount_point()
    assert root is not None, "the kernel's groups of version 2 have to be mounted for this test"
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    path = root / own.removeprefix("0::/") / f"dwcp-test-{os.getpid()}"
    path.mkdir()
    yield path, Cgroup(len(path.relative_to(root).parts), path.stat().st_ino)
    path.rmdir()


def connect_from(group: Path, port: int) -> tuple[subprocess.Popen[str], tuple[str, int]]:
    """Connect to a port of loopback from a process in a control group; that process, and its end of the connection."""
    program = (
        "import pathlib, socket, sys\n"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text('0')\n"
        "sock = socket.create_connection(('127.0.0.1', int(sys.argv[2])))\n"
        "print(sock.getsockname()[1], flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(group), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, ("127.0.0.1", int(process.stdout.readline()))


def test_whoever_opened_a_connection_is_told_by_its_group(group: tuple[Path, Cgroup]) -> None:
    root, _ = group
    services = [root / SLICE / name for name in ("glusterd.service", "libvirtd.service")]
    with contextlib.ExitStack() as cleaning, socket.create_server(("127.0.0.1", 0)) as listener:
        for made in (root / SLICE, *services):
            made.mkdir()
            cleaning.callback(made.rmdir)
        asked = ForeignServices(root)
        cleaning.callback(asked.close)
        there = listener.getsockname()
        said = []
        for service in services:
            process, here = connect_from(service, there[1])
            said.append(asked.opened(here, there))
            process.communicate()
        assert said == [True, False]
        assert not asked.opened(("127.0.0.1", 1), there)
        assert not asked.opened(("::1", 1), ("::1", 2))


def test_connections_of_a_foreign_group_and_of_groups_below_are_left_alone(group: tuple[Path, Cgroup]) -> None:
    path, known = group
    here = Namespace()
    here.run("ip", "address", "add", f"{PEER}/32", "dev", "lo")
    interceptor = here.call(NftInterceptor)
    interceptor.arm(
        Redirect(frozenset([PEER]), PORT_MIN, PORT_MAX, TO_PORT, Exemption(), frozenset([known, Cgroup(9, 1)]))
    )
    program = (
        "import pathlib, socket, sys\n"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text('0')\n"
        f"print(socket.socket().connect_ex(({PEER!r}, {PORT_MIN})))"
    )
    below = path / "below"
    below.mkdir()
    with contextlib.ExitStack() as cleaning, here.call(socket.create_server, ("127.0.0.1", TO_PORT)):
        cleaning.callback(below.rmdir)
        cleaning.callback(interceptor.close)
        outcomes = [
            subprocess.run(
                here.command(sys.executable, "-c", program, str(where)), capture_output=True, text=True, check=True
            ).stdout.strip()
            for where in (path.parent, path, below)
        ]
        assert outcomes == ["0", "111", "111"]  # redirected; refused by the peer itself, where nobody listens
        assert interceptor.caught()[0].packets >= 1
        assert "socket cgroupv2 level" in here.run("nft", "list", "ruleset")
    here.close()
