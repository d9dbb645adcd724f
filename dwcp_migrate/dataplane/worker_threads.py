"""Threads that do the parallel half of the work, and the time in which all threads of a kind wait.

The pool compresses at the source and decompresses at the destination.

The compressors free the GIL; a queue hand-over costs 16 us against about 1 ms of work for a segment.
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final

HOST_SHARE: Final = 4
"""Guests first: one migration's compressors take this part of the host's cores,"""
WORKERS_MIN: Final = 2
"""but at least two, where there are two."""


def worker_count(configured: int, usable_cores: int, host_cores: int) -> int:
    """Threads that compress or decompress.

    Args:
        configured: `encoding.workers`, 0 leaves it to this.
        usable_cores: that this process may run on.
        host_cores: of the whole host.
    """
    return configured or min(usable_cores, max(WORKERS_MIN, -(-host_cores // HOST_SHARE)))


def workers_here(configured: int) -> int:
    """`worker_count` of this process on this host."""
    return worker_count(configured, len(os.sched_getaffinity(0)), os.cpu_count() or 1)


class WorkPool:
    """Runs tasks on `count` threads; a task's exception goes to `failed` and ends nothing else.

    Urgent tasks go before all others. The queue has no bound of its own: every task stands for bytes that a window
    already let in.

    Attributes:
        count: threads.
    """

    def __init__(self, count: int, name: str, failed: Callable[[BaseException], None]) -> None:
        self.count = count
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._first: deque[Callable[[], None]] = deque()
        self._tasks: deque[Callable[[], None]] = deque()
        self._failed = failed
        self._busy_s = [0.0] * count
        self._began_at: list[float | None] = [None] * count
        for index in range(count):
            threading.Thread(target=self._run, args=(index,), name=f"{name}-{index}", daemon=True).start()

    def submit(self, task: Callable[[], None], *, first: bool = False) -> None:
        """Queue a task.

        Args:
            task: called once, on one of the threads.
            first: before all tasks that are not.
        """
        (self._first if first else self._tasks).append(task)
        self._calls.put(True)

    def _take(self) -> Callable[[], None]:
        """The next task; there is one for each call."""
        while True:
            for tasks in (self._first, self._tasks):
                with contextlib.suppress(IndexError):
                    return tasks.popleft()

    def busy_s(self) -> float:
        """Time that all threads together have spent on tasks, unfinished ones included."""
        now = time.monotonic()
        return sum(self._busy_s) + sum(now - began for began in self._began_at if began is not None)

    def _run(self, index: int) -> None:
        while self._calls.get():
            task = self._take()
            began = self._began_at[index] = time.monotonic()
            try:
                task()
            except Exception as error:  # noqa: BLE001 - the session decides what a fault means
                self._failed(error)
            self._began_at[index] = None
            self._busy_s[index] += time.monotonic() - began

    def close(self) -> None:
        """Let the threads end after what is queued."""
        for _ in range(self.count):
            self._calls.put(False)


class IdleClock:
    """Counts the time in which all members wait at once; threads join and leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members = self._waiting = 0
        self._since: float | None = None
        self._total_s = 0.0

    @contextmanager
    def member(self) -> Iterator[None]:
        """Count this thread as a member."""
        self._change(members=1)
        try:
            yield
        finally:
            self._change(members=-1)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait, as a member."""
        self._change(waiting=1)
        try:
            yield
        finally:
            self._change(waiting=-1)

    def _change(self, *, members: int = 0, waiting: int = 0) -> None:
        now = time.monotonic()
        with self._lock:
            self._members += members
            self._waiting += waiting
            idle = 0 < self._members == self._waiting
            if idle and self._since is None:
                self._since = now
            elif not idle and self._since is not None:
                self._total_s += now - self._since
                self._since = None

    def total_s(self, now: float) -> float:
        """Time so far."""
        with self._lock:
            return self._total_s + (max(0.0, now - self._since) if self._since is not None else 0.0)
