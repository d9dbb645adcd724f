"""Several replicas, each in a process of its own on a loopback address, for measurements and tests.

The rule: nothing waits longer than `WAIT_S`, and leaving ends every process.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from bench.suites.replicas.replica import Answer, Order, Setup
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.pki import create_authority, issue

WAIT_S: Final = 60.0


class Replica:
    """One process.

    Args:
        setup: who it is.
        heard: told of news that nobody asked for.
    """

    def __init__(self, setup: Setup, heard: Callable[[str, Answer], None]) -> None:
        self.setup = setup
        self.name = setup.name
        self._heard = heard
        self._ids = count(1)
        self._answers: dict[int, queue.SimpleQueue[Answer]] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False

    def start(self) -> None:
        """Start it and wait until it listens."""
        ready: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.suites.replicas.replica", msgspec.json.encode(self.setup).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.is_stopped = False
        threading.Thread(target=self._listen, args=(self.process, ready), daemon=True).start()
        try:
            ready.get(timeout=WAIT_S)
        except queue.Empty as error:
            raise DwcpError(f"replica {self.name} did not start") from error

    def _listen(self, process: "subprocess.Popen[bytes]", ready: "queue.SimpleQueue[Answer]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                answer = msgspec.json.decode(line, type=Answer)
                if answer.id:
                    waiting = self._answers.pop(answer.id, None)
                    if waiting is not None:
                        waiting.put(answer)
                elif "ready" in answer.values:
                    ready.put(answer)
                else:
                    self._heard(self.name, answer)

    def ask(self, do: str, **how: Any) -> "queue.SimpleQueue[Answer]":
        """Give an order; the answer comes into the queue returned, unless the process dies."""
        assert self.process is not None
        assert self.process.stdin is not None
        order = Order(id=next(self._ids), do=do, **how)
        answer: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._answers[order.id] = answer
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(msgspec.json.encode(order) + b"\n")
            self.process.stdin.flush()
        return answer

    def call(self, do: str, **how: Any) -> dict[str, Any]:
        """Give an order and wait for it.

        Raises:
            DwcpError: it failed, or nothing came.
        """
        try:
            answer = self.ask(do, **how).get(timeout=WAIT_S)
        except queue.Empty as error:
            raise DwcpError(f"{self.name} did not answer {do}") from error
        if answer.error:
            raise DwcpError(f"{self.name}, {do}: {answer.error}")
        return answer.values

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)
        self.is_stopped = number == signal.SIGSTOP

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self.process.stdin.close()
            self.process = None

    @property
    def is_running(self) -> bool:
        """Whether it runs and is not stopped."""
        return self.process is not None and not self.is_stopped


class Cluster:
    """Replicas that know each other.

    Args:
        directory: for certificates and journals.
        voters: how many have a vote.
        observers: how many have none.
        durable: fsync.
        election_s: see `state.replica.Settings`.
    """

    def __init__(
        self, directory: Path, voters: int, *, observers: int = 0, durable: bool = True, election_s: float = 0.3
    ) -> None:
        names = [f"n{number}.bench" for number in range(voters + observers)]
        block = os.getpid() % 64516
        addresses = {
            name: f"127.{100 + block // 254}.{1 + block % 254}.{number + 1}" for number, name in enumerate(names)
        }
        tls = directory / "tls"
        create_authority(tls)
        for name in names:
            issue(tls, name)
        self._news: dict[str, Answer] = {}
        self._changed = threading.Condition()
        self.replicas = {
            name: Replica(
                Setup(
                    name=name,
                    addresses=addresses,
                    voters=names[:voters],
                    tls=str(tls),
                    directory=str(directory / name),
                    durable=durable,
                    election_s=election_s,
                ),
                self._heard,
            )
            for name in names
        }

    def _heard(self, name: str, answer: Answer) -> None:
        with self._changed:
            self._news[name] = answer
            self._changed.notify_all()

    def __enter__(self) -> Self:
        """Start all."""
        for replica in self.replicas.values():
            replica.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all."""
        for replica in self.replicas.values():
            replica.kill()

    def settle(self) -> None:
        """Wait until each replica that runs has seen everything that was confirmed before."""
        for replica in self.running():
            replica.call("read")

    def running(self) -> list[Replica]:
        """Those that run now."""
        return [replica for replica in self.replicas.values() if replica.is_running]

    def leader(self, among: Iterable[str] = (), after: float = 0.0) -> tuple[Replica, float]:
        """Wait until one that runs says that it leads, since `after`; returns it and when that was.

        Raises:
            DwcpError: nobody did.
        """
        deadline = time.monotonic() + WAIT_S
        with self._changed:
            while time.monotonic() < deadline:
                for name, news in self._news.items():
                    replica = self.replicas[name]
                    leads = news.values["leader"] == name and replica.is_running and news.at > after
                    if leads and (not among or name in among):
                        return replica, news.at
                self._changed.wait(1.0)
        raise DwcpError("nobody leads")
