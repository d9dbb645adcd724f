"""Addresses of the peers, kept current: names are resolved again and again, and this host's own addresses are watched.

Names are resolved on threads and never on the event loop, so that a name server that does not answer delays only
changes. A name that cannot be resolved keeps the addresses that it had.
"""

import asyncio
import contextlib
import functools
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from dwcp_migrate.agent.peers.directory import PeerDirectory, host_names
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.config.addresses import normalise_address
from dwcp_migrate.logs import get_logger
from dwcp_migrate.tasks import Tasks

RESOLVE_EVERY_S: Final = 30.0
"""Also how long a change of a name takes at most to reach the redirect, the resolver's own caches apart."""

THREADS_MAX: Final = 4
"""Names that are resolved at once; a name server that is silent holds each for some 10 s."""

LOOK_UP_S_MAX: Final = 20.0
"""For one name; its thread is left alone then, and the name is not asked for again until that came back."""

ADDRESSES_MAX: Final = 64
"""Of one name; more is somebody's mistake."""

_NO_ANSWER: Final = "no answer in time"
_RTMGRP_IPV4_IFADDR: Final = 0x10
_RTMGRP_IPV6_IFADDR: Final = 0x100
_MESSAGES_BYTES: Final = 64 * 1024

T = TypeVar("T")

log = get_logger(component="peers")


class PeerAddresses:
    """Keeps a directory of the peers true.

    Args:
        own_name: this host's.
        is_own: says whether an IP address is this host's.
        changed: takes a directory that differs from the one before.
    """

    def __init__(self, own_name: str, is_own: Callable[[str], bool], changed: Callable[[PeerDirectory], None]) -> None:
        self._own_name = own_name
        self._is_own = is_own
        self._changed = changed
        self._peers: tuple[PeerConfig, ...] = ()
        self._resolved: dict[str, list[str]] = {}
        self._errors: dict[str, str] = {}
        self._now = self._directory()
        self._turns = asyncio.Semaphore(THREADS_MAX)
        self._hanging: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        self._interfaces: socket.socket | None = None

    def use(self, peers: Iterable[PeerConfig]) -> PeerDirectory:
        """Take other peers; names that were never resolved are as soon as they can be."""
        self._peers = tuple(peers)
        self._now = self._directory()
        self._wake.set()
        return self._now

    def follow(self, peers: Iterable[PeerConfig]) -> None:
        """Take other peers as `use` does, beside the event loop: there may be a thousand; `changed` hears of them."""
        self._peers = tuple(peers)
        self._wake.set()

    def start(self) -> None:
        """Begin to resolve, and to listen to the kernel for addresses of this host."""
        self._tasks.begin(self._run())
        watched = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        watched.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
        self._interfaces = watched
        asyncio.get_running_loop().add_reader(watched, self._interfaces_changed)

    def _directory(self) -> PeerDirectory:
        return PeerDirectory(self._peers, self._own_name, self._is_own, self._resolved)

    def _interfaces_changed(self) -> None:
        with contextlib.suppress(OSError):  # ENOBUFS: news were lost, and there were some
            while self._interfaces is not None:
                self._interfaces.recv(_MESSAGES_BYTES)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._resolve()
                await self._look_again()
            except Exception:  # such as no thread to be had: the next look may fare better
                log.exception("addresses of peers are as they were")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESOLVE_EVERY_S):
                    await self._wake.wait()

    async def _resolve(self) -> None:
        names = sorted(host_names(self._peers))
        answers = await asyncio.gather(*(self._look_up(name) for name in names))
        for name, (found, error) in zip(names, answers, strict=True):
            if error and self._errors.get(name) != error:
                log.warning("a peer's name does not resolve", name=name, error=error)
            self._errors[name] = error
            if found and set(found) != set(self._resolved.get(name, [])):
                self._resolved[name] = found  # name servers turn the order at each answer: that alone is no news

    async def _look_up(self, name: str) -> tuple[list[str], str]:
        async with self._turns:
            if name in self._hanging:
                return [], _NO_ANSWER
            self._hanging.add(name)
            answer = in_background(lambda: look_up_name(name))
            answer.add_done_callback(lambda _: self._hanging.discard(name))
            try:
                async with asyncio.timeout(LOOK_UP_S_MAX):
                    return await asyncio.shield(answer)
            except TimeoutError:
                return [], _NO_ANSWER

    async def _look_again(self) -> None:
        """Make the directory anew; on a thread, because each address is looked at."""
        peers = self._peers
        directory = await in_background(self._directory)
        if peers is self._peers and not directory.knows_the_same(self._now):
            self._now = directory
            log.info("addresses of peers changed", addresses=len(directory.redirected()))
            self._changed(directory)

    async def close(self) -> None:
        """Stop; a look-up that hangs is left to its thread."""
        await self._tasks.cancel()
        if self._interfaces is not None:
            asyncio.get_running_loop().remove_reader(self._interfaces)
            self._interfaces.close()
            self._interfaces = None


def in_background(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run on a thread that a process which ends does not wait for, unlike those of an executor."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle: Callable[[], None] = functools.partial(done.set_result, work())
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            settle = functools.partial(done.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if done.done() else settle())

    threading.Thread(target=run, name="addresses", daemon=True).start()
    return done


def look_up_name(name: str) -> tuple[list[str], str]:
    """Resolve a name: its addresses, and why there are none. Loopback, as Debian has for the own name, is none."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [], str(error)
    found = dict.fromkeys(normalise_address(str(where[0]).partition("%")[0]) for *_, where in answers)
    usable = [address for address in found if not ipaddress.ip_address(address).is_loopback]
    return usable[:ADDRESSES_MAX], "" if usable else "only loopback addresses"
