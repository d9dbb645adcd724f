"""Counts of what a lab holds: what comes and goes by itself is no part of them."""

import subprocess
import sys
from pathlib import Path

from dwcp_migrate.lab.observation.census import _names
from tests.hypervisor.namespace import Namespace

WAITS = "print(flush=True); input()"


def test_a_qemu_that_is_only_asked_what_it_can_do_is_not_counted() -> None:
    inside = Namespace()
    began = [
        inside.start(sys.executable, "-c", WAITS, "-machine", machine, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for machine in ("none,accel=tcg", "q35")
    ]
    try:
        for process in began:
            assert process.stdout is not None
            process.stdout.readline()
        probing, guest = began
        namespace = str(Path(f"/proc/{guest.pid}/ns/net").readlink())
        assert str(Path(f"/proc/{probing.pid}/ns/net").readlink()) == namespace
        assert _names(namespace) == [Path(f"/proc/{guest.pid}/comm").read_text().strip()]
    finally:
        for process in began:
            process.communicate("\n")
        inside.close()
