"""Limit on log lines that strangers can cause: a few in each window. No clock; `now` is an argument."""

from typing import Final

LINES_MAX: Final = 5
WINDOW_S: Final = 10.0


class LogBudget:
    """Says whether a line may be written.

    Args:
        lines: in a window.
        window_s: its length.
    """

    def __init__(self, lines: int = LINES_MAX, window_s: float = WINDOW_S) -> None:
        self._lines = lines
        self._window_s = window_s
        self._began = float("-inf")
        self._written = 0
        self._left_out = 0

    def spend(self, now: float) -> int | None:
        """Ask for a line; returns how many were left out since the last one, None if this one has to be left out."""
        if now - self._began >= self._window_s:
            self._began, self._written = now, 0
        if self._written >= self._lines:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
