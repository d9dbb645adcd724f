"""Real agents lose their majority for good, and are brought back by the lines of the operations page, as they stand."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from dwcp_migrate.api.cluster import HeldLease, Locks
from dwcp_migrate.state.fleet.backup import LEAP
from tests.agent.hosts import Host
from tests.agent.test_tickets import BOTH, agreed, coordinate

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
HEADING = "## When a majority of the voters is lost for good\n"


def lines() -> list[str]:
    """The commands of the page's section, in their order."""
    section = PAGE.read_text().partition(HEADING)[2].partition("\n## ")[0]
    return re.findall(r"^ {8}(\S.*)$", section, re.MULTILINE)


def acquire(host: Host, name: str) -> tuple[int, int]:
    """Take a lease; returns the answer's status and the token."""
    status, body = host.get(f"/v1/locks/acquire?name={name}&lifetime_s=300", "POST")
    return status, msgspec.json.decode(body, type=HeldLease).token if status == 200 else 0


def run(host: Host, line: str, file: Path) -> str:
    """Run a line of the page on a host, and say yes where it asks."""
    command = line.split()
    if command[0] == "systemctl":
        if command[1] == "stop" and host.agent is not None:
            host.stop()
        elif command[1] == "start":
            host.spawn()
        return ""
    assert command[0] == "dwcp-migrate"
    words = [str(file) if word.startswith("/var/backups/") else word for word in command[1:]]
    where = [sys.executable, "-m", "dwcp_migrate", *words, "--config", str(host.config)]
    done = subprocess.run(where, input="y\n", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_lost_majority_is_restored_by_the_lines_of_the_page(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    left, lost = hosts
    coordinate(hosts, BOTH, require=False)
    agreed(hosts)
    taken, before = acquire(left, "before")
    assert taken == 200
    lost.stop(signal.SIGKILL)
    shutil.rmtree(lost.directory / "state")
    assert acquire(left, "without-a-majority") == (503, 0)

    export, stop, restore, start, status = lines()
    file = tmp_path / "left.dwcp"
    assert "NOT CONFIRMED by a majority" in run(left, export, file)
    for line in (stop, restore):
        for host in hosts:
            run(host, line, file)
    for host in hosts:
        run(host, start, file)
    for host in hosts:
        host.ready()
    agreed(hosts)

    assert "Leader" in run(lost, status, file)
    locks = msgspec.json.decode(lost.get("/v1/locks")[1], type=Locks)
    assert [(lease.name, lease.holder, lease.token) for lease in locks.leases] == [("before", left.name, before)]
    _, after = acquire(lost, "after")
    assert after > before + LEAP  # also than any token that was given after the backup
    assert (left.directory / "state" / "fleet.before-import-1" / "log").exists()
