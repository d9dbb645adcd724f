"""Keys that are pressed while a command draws on the terminal."""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from types import TracebackType
from typing import Any, Final, Self

READ_BYTES: Final = 64
"""Of keys at once; more than a hand presses between two looks."""


class Keyboard:
    """Standard input, key by key and without an echo; the terminal is put back at the end.

    Where standard input is no terminal there are no keys, and a wait only waits. Ctrl-C stays what it is.
    """

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._fd = -1

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError, ValueError, termios.error):
            fd = sys.stdin.fileno()
            if os.isatty(fd):
                self._before = termios.tcgetattr(fd)
                tty.setcbreak(fd)
                self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> str:
        """Wait for keys, at most so long.

        Returns:
            Those that were pressed; empty where none was.
        """
        if self._fd < 0:
            time.sleep(max(0.0, seconds))
            return ""
        ready, _, _ = select.select([self._fd], [], [], max(0.0, seconds))
        if not ready:
            return ""
        try:
            pressed = os.read(self._fd, READ_BYTES)
        except OSError:
            pressed = b""
        if not pressed:
            self._fd = -1  # its other end is closed, and would be "ready" for ever
        return pressed.decode(errors="replace")
