"""Blocking calls to libvirtd: for each purpose a few threads, each with a connection of its own, each call timed out.

A call to libvirt cannot be interrupted: one that waits behind a domain's job holds its thread for up to 30 s. So the
caller gives up at the time-out, the thread comes back by itself, and until then the same domain is not asked again for
that purpose. Each thread has its own connection, because on a shared one libvirt's client slows the others down while
one of them waits (libvirt 9.0: from 5,000 calls a second to 15), and libvirtd serves five requests of it at once.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import libvirt

from dwcp_migrate.errors import NoAnswerError
from dwcp_migrate.hypervisor.inventory.connection import is_alive, keep_alive
from dwcp_migrate.tasks import wait_within

OPEN_S_MAX: Final = 10.0
"""For a connection to open; a libvirtd that is stopped accepts and then says nothing."""

CLOSE_S_MAX: Final = 1.0
"""For the threads to end: the agent's end does not wait for a libvirtd that is stuck."""

DEFINITE: Final = frozenset(
    {
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_OPERATION_INVALID,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    }
)
"""Errors that answer the question: there is no such domain, it does not run, it has no such thing."""

T = TypeVar("T")


class LibvirtCalls:
    """The calls of one purpose.

    Args:
        uri: of libvirtd.
        purpose: names the threads.
        threads: how many calls at once; all threads are started, and connect, with the first call, so that what an
            agent holds open does not grow with its age.
    """

    def __init__(self, uri: str, purpose: str, threads: int) -> None:
        self._uri = uri
        self._name = f"libvirt-{purpose}"
        self._threads_max = threads
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[Any], Any]] | None] = queue.SimpleQueue()
        self._stuck: set[str] = set()
        self._ended: list[Future[None]] = []

    async def ask(self, key: str, question: Callable[[Any], T], timeout_s: float) -> T:
        """Call on a thread.

        Args:
            key: of the domain that the call may wait for, or another name for what is asked.
            question: gets the thread's connection (libvirt.virConnect).
            timeout_s: how long the answer is waited for.

        Returns:
            What `question` returns.

        Raises:
            NoAnswerError: none in time, an earlier call for this key has not come back, or an error that says nothing
                of the domain: no libvirtd, a job that holds the domain, a monitor that is silent.
            libvirt.libvirtError: an error of `DEFINITE`.
        """
        if key in self._stuck:
            raise NoAnswerError(f"libvirt has not answered yet what was asked of {key} before")
        loop = asyncio.get_running_loop()
        future = self._submit(question)
        try:
            return await wait_within(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            raise NoAnswerError(f"libvirt gave no answer on {key} within {timeout_s:g} s") from None
        except libvirt.libvirtError as error:
            if error.get_error_code() in DEFINITE:
                raise
            raise NoAnswerError(f"libvirt gave no answer on {key}: {error}") from error
        finally:
            if not future.done():
                self._stuck.add(key)
                future.add_done_callback(lambda _: _on_loop(loop, self._stuck.discard, key))

    def start(self) -> None:
        """Start the threads and have them connect, unless they run."""
        for number in range(len(self._ended), self._threads_max):
            ended: Future[None] = Future()
            ended.set_running_or_notify_cancel()  # so that a caller that gives up waiting cannot cancel it
            self._ended.append(ended)
            # A daemon, so that a call that hangs does not hold up the end of the process.
            name = f"{self._name}-{number + 1}"
            threading.Thread(target=self._serve, args=(ended,), name=name, daemon=True).start()

    def _submit(self, question: Callable[[Any], T]) -> "Future[T]":
        self.start()
        future: Future[T] = Future()
        self._work.put((future, question))
        return future

    def _serve(self, ended: "Future[None]") -> None:
        """Answer questions with a connection of this thread's own, which is opened again after it broke."""
        connection: Any = None
        with contextlib.suppress(libvirt.libvirtError):  # the first question tries again, and raises the error
            connection = _opened(self._uri)
        while (item := self._work.get()) is not None:
            future, question = item
            if future.set_running_or_notify_cancel():
                try:
                    if connection is None or not is_alive(connection):
                        _close(connection)
                        connection = None
                        connection = _opened(self._uri)
                    future.set_result(question(connection))
                except BaseException as error:  # noqa: BLE001 - raised again where the call was made
                    future.set_exception(error)
        _close(connection)
        ended.set_result(None)

    async def close(self) -> None:
        """Let the threads go, each with its connection; one that is stuck is left behind."""
        for _ in self._ended:
            self._work.put(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await asyncio.gather(*(asyncio.wrap_future(ended) for ended in self._ended))


def _opened(uri: str) -> Any:
    """Open a connection (libvirt.virConnect) that notices when the other end is gone; blocks.

    Raises:
        libvirt.libvirtError: there is no libvirtd, or it refuses.
    """
    connection = libvirt.open(uri)
    keep_alive(connection)
    return connection


def _close(connection: Any) -> None:
    if connection is None:
        return
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[str], None], key: str) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
        loop.call_soon_threadsafe(function, key)
