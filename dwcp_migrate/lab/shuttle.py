"""A guest that migrates back and forth between two of the lab's hypervisors, and its checks after each migration.

The rule here: libvirt is asked where the guest runs; nothing is remembered, because a migration that was meant to fail
leaves the guest on either host.

    shuttle = Shuttle(lab, LabGuest(options))
    with Watch(shuttle.agent("source")) as watch:
        move = shuttle.begin("--live")
        watch.until(lambda record: record.iteration >= 2)
        ...                                     # disturb it
    move.wait()
    shuttle.check()                             # runs on exactly one host, all its memory checked there
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import Migrations, Update
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import GuestReport, LabGuest
from dwcp_migrate.lab.hosts.agents import LabAgent
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab

MOVE_S_MAX: Final = 180.0
"""Bound of one migration of a small guest, disturbances included."""

RECORD_S_MAX: Final = 30.0
"""From `virsh`'s end to the end of the record: an agent waits for libvirt's and its peer's word."""

POLL_S: Final = 0.05

Side = Literal["source", "destination"]


@dataclass(frozen=True, slots=True)
class ShuttleOutcome:
    """End of `virsh migrate`: exit status, output, seconds."""

    status: int
    said: str
    time_s: float

    @property
    def succeeded(self) -> bool:
        """Whether virsh reported success."""
        return self.status == 0


class Move:
    """One `virsh migrate` that runs.

    Args:
        process: in a process group of its own.
        command: what was typed.
    """

    def __init__(self, process: "subprocess.Popen[str]", command: str) -> None:
        self.command = command
        self._process = process
        self._begin = time.monotonic()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait(self, timeout_s: float = MOVE_S_MAX) -> ShuttleOutcome:
        """Wait for its end.

        Raises:
            LabError: it did not end within `timeout_s`; it is killed then.
        """
        try:
            out, errors = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            os.killpg(self._process.pid, signal.SIGKILL)
            out, errors = self._process.communicate()
            raise LabError(f"`{self.command}` did not end within {timeout_s:.0f} s: {out}{errors}") from error
        return ShuttleOutcome(self._process.returncode, (out + errors).strip(), time.monotonic() - self._begin)


class Shuttle:
    """The guest and its two hosts.

    Args:
        lab: its first two hosts are the guest's.
        guest: started or not.
    """

    def __init__(self, lab: Lab, guest: LabGuest) -> None:
        self.lab = lab
        self.guest = guest

    @property
    def source(self) -> Hypervisor:
        """The host that the guest runs on.

        Raises:
            LabError: it runs on none, or on both.
        """
        hosts = self.lab.hypervisors[:2]
        running = self.guest.running_on(*hosts)
        if len(running) != 1:
            raise LabError(f"{self.guest.name} runs on {' and '.join(running) or 'no host'}")
        return self.lab[running[0]]

    @property
    def destination(self) -> Hypervisor:
        """The other host."""
        return self.other(self.source)

    def other(self, host: Hypervisor) -> Hypervisor:
        """Return the other one of the two hosts."""
        first, second = self.lab.hypervisors[:2]
        return second if host == first else first

    def begin(self, *flags: str, uri: str = "qemu+tcp", virsh: Sequence[str] = ()) -> Move:
        """Start `virsh migrate` towards the other host.

        Args:
            flags: added to `--live`.
            uri: how libvirt talks to the destination's libvirt.
            virsh: options of virsh itself.
        """
        source = self.source
        command = ["migrate", "--live", *flags, self.guest.name, f"{uri}://{self.other(source).name}/system"]
        return Move(source.popen(["virsh", *virsh, *command]), " ".join(command))

    def move(self, *flags: str, uri: str = "qemu+tcp") -> ShuttleOutcome:
        """Migrate to the other host and wait for the end, whatever it is."""
        return self.begin(*flags, uri=uri).wait()

    def check(self) -> GuestReport:
        """Let the guest check all its memory where it runs, beginning now, and return its report.

        Raises:
            LabError: it runs on no host or on both, or found wrong memory.
        """
        host = self.source
        left = self.other(host)
        if self.guest.name in left.domains():
            raise LabError(f"{self.guest.name} runs on {host.name} and is still a domain on {left.name}")
        return self.guest.wait_healthy(host)


def newest_record(agent: LabAgent, role: Side, *, after: float = 0.0) -> Migration:
    """Wait until an agent's newest migration in a role has ended.

    Args:
        agent: whose record.
        role: of its host in the migration.
        after: seconds since the epoch; migrations that began before do not count.

    Raises:
        LabError: there is none within `RECORD_S_MAX`.
    """
    deadline = time.monotonic() + RECORD_S_MAX
    running: list[Migration] = []
    while time.monotonic() < deadline:
        running = msgspec.convert(agent.get("/v1/migrations"), Migrations).migrations
        ended = msgspec.convert(agent.get("/v1/history?limit=20"), Migrations).migrations
        found = next((record for record in ended if record.role == role and record.started_at >= after), None)
        if found is not None and not any(record.role == role for record in running):
            return found
        time.sleep(POLL_S)
    raise LabError(
        f"{agent.hypervisor.name} recorded no migration as {role}, and has under way {running}; see {agent.log}"
    )


class Watch:
    """The records of one agent's migrations as they change; begin it before what it is to see.

    Args:
        agent: whose.
    """

    def __init__(self, agent: LabAgent) -> None:
        self._agent = agent
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(agent.api_socket))
            self._socket.sendall(b"GET /v1/events HTTP/1.0\r\n\r\n")
            self._rest = self._head()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()

    def _head(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._received(10.0)
        return data.partition(b"\r\n\r\n")[2]

    def _received(self, timeout_s: float) -> bytes:
        self._socket.settimeout(max(timeout_s, 0.001))
        data = self._socket.recv(65536)
        if not data:
            raise LabError(f"the agent of {self._agent.hypervisor.name} ended the stream of events")
        return data

    def until(self, holds: Callable[[Migration], bool], *, timeout_s: float = 60.0) -> Migration:
        """Wait for a record that meets a condition, and return it.

        Args:
            holds: the condition; called with each new record.
            timeout_s: longest wait in seconds.

        Raises:
            LabError: none came within `timeout_s`, or the agent ended.
        """
        deadline = time.monotonic() + timeout_s
        last: Migration | None = None
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if not found:
                try:
                    self._rest += self._received(deadline - time.monotonic())
                except TimeoutError as error:
                    raise LabError(f"waited {timeout_s:.0f} s in vain; the last record: {last}") from error
                continue
            self._rest = rest
            if line.startswith(b"data: "):
                last = msgspec.json.decode(line[6:], type=Update).migration or last
                if last is not None and holds(last):
                    return last
