"""Three hypervisors, eight guests, and the plan commands on one of them as an operator runs them."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Final

from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab
from dwcp_migrate.lab.wan import WanLink

WAN: Final = WanLink(rate_bytes_per_s=25e6, delay_s=0.002, loss=0.0)
"""200 Mbit/s: a migration takes a few seconds, time enough to kill somebody meanwhile."""

GUESTS: Final = 8
COMMAND_S_MAX: Final = 300.0
POLL_S: Final = 0.2


class PlanLab:
    """The lab, its guests, and the commands on hv1.

    Args:
        lab: with three hosts, no agents yet.
        changes: to all agents' configurations, by table.
    """

    def __init__(self, lab: Lab, changes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.lab = lab
        self._changes = changes or {}
        for host in lab.hypervisors:
            self.start_agent(host)
        self.guests = [LabGuest(small_guest(f"vm{number}", number)) for number in range(GUESTS)]
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda at: at[1].start(lab.hypervisors[at[0] % 3]), enumerate(self.guests)))

    def start_agent(self, host: Hypervisor) -> None:
        placement = {"uri": "qemu+tcp://{address}/system", "address": host.address}
        self.lab.start_agent(host.name, {**self._changes, "placement": placement})

    def argv(self, *words: str, on: str = "hv1") -> list[str]:
        config = str(self.lab.agents[on].config)
        return self.lab[on].namespace.beside([sys.executable, "-m", "dwcp_migrate", *words, "--config", config])

    def say(self, *words: str, on: str = "hv1") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words, on=on), capture_output=True, text=True, check=False, timeout=COMMAND_S_MAX
        )

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command on hv1 and return when it says that its first migration begins."""
        command = subprocess.Popen(self.argv(*words), stdout=subprocess.PIPE, text=True, bufsize=1)
        assert command.stdout is not None
        wait_for_begin(command.stdout)
        return command

    def where(self) -> dict[str, list[str]]:
        """Guests that run, by host."""
        return {
            host.name: sorted(host.virsh("list", "--name", "--state-running").stdout.split())
            for host in self.lab.hypervisors
        }

    def check(self) -> dict[str, list[str]]:
        """Every guest runs on exactly one host and has sound memory there; who runs where."""
        where = self.where()
        assert sorted(name for names in where.values() for name in names) == sorted(one.name for one in self.guests)
        for guest in self.guests:
            host = next(host for host in self.lab.hypervisors if guest.name in where[host.name])
            guest.wait_report(host, after=guest.report(host), timeout_s=120.0)
        return where

    def until(self, holds: Callable[[], Any], timeout_s: float = 120.0) -> None:
        """Wait for what has no event."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, "in vain"
            time.sleep(POLL_S)


def small_guest(name: str, seed: int, **more: Any) -> GuestOptions:
    """A guest that migrates in a few seconds; `more` are other options of it."""
    options = {"memory_mib": 96, "fill_mib": 4, "dirty_pages_per_s": 20, "check_pages_per_s": 400} | more
    return GuestOptions(name=name, seed=seed, **options)


def wait_for_begin(lines: IO[str]) -> None:
    """Wait until a command says that its first migration begins."""
    said = next((line for line in lines if "->" in line), "")
    assert said, "the command ended before it began a migration"


def busiest(where: dict[str, list[str]], *, but: str = "") -> str:
    """The host with the most guests, another one than `but`."""
    return max((name for name in where if name != but), key=lambda name: len(where[name]))
