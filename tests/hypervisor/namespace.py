"""A network namespace of this test's own: functions run in it on a thread, programs through nsenter. Needs root."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _on_thread(function: Callable[[], T]) -> T:
    """Run on a thread that then ends, so that what it changed about itself ends with it."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Namespace:
    """Lives as long as its descriptor is open."""

    def __init__(self) -> None:
        def make() -> int:
            _checked(_libc.unshare(_CLONE_NEWNET))
            return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self._descriptor = _on_thread(make)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.run("ip", "link", "set", "lo", "up")

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function inside; sockets that it makes stay inside for good."""

        def inside() -> T:
            _checked(_libc.setns(self._descriptor, _CLONE_NEWNET))
            return function(*args, **kwargs)

        return _on_thread(inside)

    def command(self, *command: str) -> list[str]:
        """The command line that runs a program inside."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str) -> str:
        """Run a program inside and return what it printed."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program inside."""
        return subprocess.Popen(self.command(*command), text=True, **options)

    def close(self) -> None:
        os.close(self._descriptor)


def join(ends: Sequence[tuple[Namespace, Sequence[str]]]) -> None:
    """Join two namespaces with a veth pair; each end gets its addresses (with prefix length)."""
    (first, _), (second, _) = ends
    names = ("joined0", "joined1")
    first.run("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1], "netns", second.path)
    for (namespace, addresses), name in zip(ends, names, strict=True):
        for address in addresses:
            extra = ["nodad"] if ":" in address else []
            namespace.run("ip", "addr", "add", address, "dev", name, *extra)
        namespace.run("ip", "link", "set", name, "up")
