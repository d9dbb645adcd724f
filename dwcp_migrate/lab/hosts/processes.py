"""Processes that the lab started, identified so that no other process is mistaken for them.

The rule here: a process is its pid together with its start time, because the kernel may have given the pid to another
process by the time that `lab down` runs. Signals go through a pidfd, so that the pid cannot be reused in between.
What the lab starts outside its hypervisors' PID namespaces carries the lab's identity in its environment, which its
children inherit: `marked` finds them all, also those whose parent died before it could record them.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.errors import LabError

MARK: Final = "DWCP_LAB_ID"
"""Environment variable that holds the identity of the lab that a process belongs to."""

END_S: Final = 5.0
"""Time that a process has after SIGTERM before it gets SIGKILL."""

LAUNCH_QUIET: Final = '"$@" < /dev/null >> "$0" 2>&1 & echo $!'
LAUNCH_ANNOUNCED: Final = """sh -c 'echo $$; exec "$@" < /dev/null 2>> "$0"' "$0" "$@" &"""
"""A shell in between, so that the program is no child of this process: it outlives us and leaves no zombie. The shell
prints the pid before it starts a program that announces itself, so that the pid is always the first line."""

EXEC_LOOKS: Final = 5
EXEC_LOOK_S: Final = 0.002
"""Looks at an environment, and between two: a process that is just replacing its program shows none for a moment."""

START_TIME_FIELD: Final = 22
"""Position of `starttime` in /proc/PID/stat, counted from 1 (proc_pid_stat(5))."""


class ProcessId(msgspec.Struct, frozen=True):
    """A process of this machine.

    Attributes:
        pid: as seen outside the lab.
        start_ticks: when it started, in clock ticks since boot.
    """

    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """Tell whether this very process still runs."""
        return _start_ticks(self.pid) == self.start_ticks

    def end(self, *, grace_s: float = END_S) -> None:
        """Ask it to end, kill it when it does not within `grace_s`, and wait until it is gone.

        Raises:
            LabError: it is still there after SIGKILL (stuck in the kernel).
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.is_alive():  # the pid was reused before the descriptor was taken
                return
            for number in (signal.SIGTERM, signal.SIGKILL) if grace_s > 0 else (signal.SIGKILL,):
                signal.pidfd_send_signal(descriptor, number)
                if _wait(descriptor, grace_s or END_S):
                    return
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)
        raise LabError(f"process {self.pid} does not end", hint="see /proc/PID/stack")


def launch(argv: Sequence[str], *, log: Path, lab_id: str) -> ProcessId:
    """Start a program that outlives us.

    Args:
        argv: the program and its arguments.
        log: file to which its output is appended.
        lab_id: mark in its environment, by which `marked_processes` finds it.

    Raises:
        LabError: it ended at once.
    """
    process, _ = _launch(LAUNCH_QUIET, argv, log=log, lab_id=lab_id)
    return process


def launch_announced(argv: Sequence[str], *, log: Path, lab_id: str) -> tuple[ProcessId, str]:
    """Start a program as `launch` does and wait for the one line that it prints when it is ready.

    Args:
        argv: the program and its arguments.
        log: file to which its errors are appended.
        lab_id: mark in its environment.

    Returns:
        The process, and its line.

    Raises:
        LabError: it ended without a line; the end of `log` is in the error.
    """
    return _launch(LAUNCH_ANNOUNCED, argv, log=log, lab_id=lab_id)


def _launch(script: str, argv: Sequence[str], *, log: Path, lab_id: str) -> tuple[ProcessId, str]:
    with subprocess.Popen(
        ["sh", "-c", script, str(log), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, MARK: lab_id},
    ) as shell:
        assert shell.stdout is not None  # asked for above
        pid = int(shell.stdout.readline())
        line = shell.stdout.readline().strip() if script is LAUNCH_ANNOUNCED else ""
    ticks = _start_ticks(pid)
    if ticks is None or (script is LAUNCH_ANNOUNCED and not line):
        raise LabError(f"{argv[0]} ended at once: {_last_lines(log)}")
    return ProcessId(pid, ticks), line


def _last_lines(log: Path, count: int = 5) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " | ".join(lines[-count:]) or "without a word"


def identify_process(pid: int) -> ProcessId:
    """Return the identity of a process that runs now.

    Raises:
        LabError: there is none, or it has ended already.
    """
    ticks = _start_ticks(pid)
    if ticks is None:
        raise LabError(f"process {pid} ended at once")
    return ProcessId(pid, ticks)


def marked_processes(lab_id: str) -> list[ProcessId]:
    """Find all processes whose environment names this lab."""
    wanted = f"{MARK}={lab_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        ticks = _start_ticks(int(entry.name)) if wanted in _environment(entry).split(b"\0") else None
        if ticks is not None:
            found.append(ProcessId(int(entry.name), ticks))
    return found


def _environment(process: Path) -> bytes:
    """Read a process's environment; empty where it is gone, is the kernel's, or has none."""
    found = b""
    with contextlib.suppress(OSError):  # it ended while we looked, or is the kernel's, which has no `exe`
        for _ in range(EXEC_LOOKS):
            found = (process / "environ").read_bytes()
            if found:
                break
            (process / "exe").readlink()
            time.sleep(EXEC_LOOK_S)
    return found


def _start_ticks(pid: int) -> int | None:
    """Read a process's start time; None when it is gone or only its exit status is left."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name may hold blanks and parentheses
    return None if fields[0] in "ZX" else int(fields[START_TIME_FIELD - 3])


def _wait(descriptor: int, timeout_s: float) -> bool:
    """Wait until the process of a pidfd has ended; a pidfd becomes readable then, also for a zombie."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))
