"""`top` on a terminal: a pseudo-terminal of a given size, and keys pressed on it."""

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WAIT_S = 30.0


class Terminal:
    """A pseudo-terminal with `top` on it."""

    def __init__(self, agent: Any, *arguments: str, stdin: Any = None, **environment: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 100))
        self.before = termios.tcgetattr(slave)
        command = [sys.executable, "-m", "dwcp_migrate", "top", "--socket", str(agent.socket_path), *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=slave if stdin is None else stdin,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **environment},
        )
        self.slave = slave
        self.shown = ""

    def until(self, words: str) -> None:
        """Read until these words were drawn since the last call."""
        ends_at, seen = time.monotonic() + WAIT_S, ""
        while words not in seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, ends_at - time.monotonic()))
            assert ready, f"{words!r} was not drawn in {WAIT_S} s: {seen[-2000:]}"
            seen += os.read(self.master, 65536).decode(errors="replace")
        self.shown += seen

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def code(self) -> int:
        """The exit code; what is drawn meanwhile is read, so that nothing blocks."""
        ends_at = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < ends_at
            if select.select([self.master], [], [], 0.05)[0]:
                self.shown += os.read(self.master, 65536).decode(errors="replace")
        return self.process.returncode


@contextmanager
def on_terminal(agent: Any, *arguments: str, **more: Any) -> Iterator[Terminal]:
    terminal = Terminal(agent, *arguments, **more)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
        os.close(terminal.slave)


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x04"])
def test_q_ends_it_at_once_and_the_terminal_is_as_before(agent: Any, key: bytes) -> None:
    with on_terminal(agent, "-i", "60") as terminal:
        terminal.until("q quit")
        assert not termios.tcgetattr(terminal.slave)[3] & termios.ECHO
        terminal.press(key)
        assert terminal.code() == 0
        assert termios.tcgetattr(terminal.slave) == terminal.before


def test_p_hides_the_peers_and_shows_them_again(agent: Any) -> None:
    with on_terminal(agent, "-i", "0.5") as terminal:
        terminal.until("40.2 ms")
        terminal.press(b"p")
        terminal.until("q quit")
        terminal.press(b"p")
        terminal.until("40.2 ms")
        terminal.press(b"q")
        assert terminal.code() == 0


def test_other_keys_change_nothing(agent: Any) -> None:
    with on_terminal(agent, "-i", "0.5") as terminal:
        terminal.until("q quit")
        terminal.press("xä \n".encode())
        terminal.until("q quit")
        assert terminal.process.poll() is None


@pytest.mark.parametrize(("signal_sent", "code"), [(2, 130), (15, 143)])
def test_a_signal_puts_the_terminal_back(agent: Any, signal_sent: int, code: int) -> None:
    with on_terminal(agent, "-i", "60") as terminal:
        terminal.until("q quit")
        terminal.process.send_signal(signal_sent)
        assert terminal.code() == code
        assert termios.tcgetattr(terminal.slave) == terminal.before


def test_without_a_terminal_to_read_from_it_draws_and_has_no_keys(agent: Any) -> None:
    with on_terminal(agent, "-i", "0.2", "-n", "3", stdin=subprocess.DEVNULL) as terminal:
        assert terminal.code() == 0
        assert terminal.shown.count("q quit") >= 2


@pytest.mark.parametrize(("locale", "drawn", "not_drawn"), [("C.UTF-8", "█", "@"), ("C", "@", "█")])
def test_sparklines_are_ascii_where_the_locale_has_no_blocks(
    agent: Any, locale: str, drawn: str, not_drawn: str
) -> None:
    with on_terminal(agent, "-i", "0.2", "-n", "2", LC_ALL=locale) as terminal:
        assert terminal.code() == 0
        line = next(line for line in terminal.shown.split("\n") if "guest memory" in line)
        assert drawn in line
        assert not_drawn not in line
