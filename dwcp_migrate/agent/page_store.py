"""This host's page store as its migrations use it: whether there is one, and the scope that a guest's pages belong to.

The rule: a store that cannot be used costs a line in the log and nothing else. This host's own configuration decides on
the scope of a migration; if the peer asks for another scope, nothing is stated to it.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from dwcp_migrate.api.usage import FilledShare, StoreUse
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import Config
from dwcp_migrate.errors import StoreError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import DomainName, Open
from dwcp_migrate.protocol.worker import StoreOptions
from dwcp_migrate.store.digests import scope_of
from dwcp_migrate.store.shelf import Shelf, StoredVolume
from dwcp_migrate.tasks import wait_within

TIDY_S: Final = 60.0
"""Interval at which the store is looked at, and pages that were not used for `store.keep_s` are removed."""

KEY_S_MAX: Final = 1.0
"""Longest wait of a migration for the store's directory: it is in memory, or on a disk that may hang."""

log = get_logger(component="agent")


class PageStore:
    """The store, opened when it is needed.

    Args:
        config: the configuration in force.
    """

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._told = ""
        self._use = StoreUse()

    def shelf(self) -> Shelf | None:
        """The store; None where it is off or cannot be used."""
        config = self._config()
        if not config.store.bytes_max:
            return None
        try:
            shelf = Shelf(config.store_directory, config.store.bytes_max)
        except StoreError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.error("no page store", error=str(error), hint=error.hint)  # noqa: TRY400 - no bug, no trace
            return None
        self._told = ""
        return shelf

    def options(self, domains: Iterable[DomainName], uuid: str = "") -> StoreOptions | None:
        """Options of the store for a data process; None where there is no store, or the domain is not known.

        Args:
            domains: that it may be of.
            uuid: of the one that its permit names, empty without a permit.
        """
        store = self._config().store
        found = [domain for domain in domains if not uuid or domain.uuid == uuid]
        if not store.bytes_max or len(found) != 1:
            return None
        return StoreOptions(
            directory=str(self._config().store_directory),
            bytes_max=store.bytes_max,
            keep_s=store.keep_s,
            scope=scope_of(found[0].name, found[0].uuid, store.scopes),
        )

    def key_for(self, options: StoreOptions | None, asked: str) -> bytes:
        """The key of what is stated to a source that asks for a scope; empty: nothing is.

        Args:
            options: of the migration, as this host sees it.
            asked: the scope that the source names.
        """
        if options is None or not asked or asked != options.scope:
            return b""
        shelf = self.shelf()
        return shelf.key(options.scope) if shelf is not None else b""

    async def offer(self, domains: Iterable[DomainName], request: Open) -> tuple[StoreOptions | None, bytes]:
        """The store for a migration that a peer brings, and the key of what is stated to it; empty: nothing is.

        Args:
            domains: announced here, that it may be of.
            request: the peer's.
        """
        options = self.options(domains, request.permit.uuid if request.permit else "")
        return options, await self.key_in_time(options, request.scope)

    async def key_in_time(self, options: StoreOptions | None, asked: str) -> bytes:
        """Find the key as `key_for` does, on a thread.

        Args:
            options: of the store; None without one.
            asked: the page store that the peer names.

        Returns:
            Empty where the directory does not answer within `KEY_S_MAX`.
        """
        try:
            return await wait_within(asyncio.to_thread(self.key_for, options, asked), KEY_S_MAX)
        except TimeoutError:
            log.warning("the page store does not answer", directory=str(self._config().store_directory))
            return b""

    def use(self) -> StoreUse:
        """Tell what the store holds, as it was looked at last; reads nothing but the configuration."""
        config = self._config()
        if not config.store.bytes_max:
            return StoreUse()
        return replace(self._use, directory=str(config.store_directory), bytes_max=config.store.bytes_max)

    async def keep_tidy(self) -> None:
        """Remove what expired and look at what is left, now and then, until cancelled."""
        while True:
            await self.tidy()
            await asyncio.sleep(TIDY_S)

    async def tidy(self) -> None:
        """Remove what expired, and look at what is left for `use`."""
        on = self._config().store.bytes_max > 0
        self._use = await asyncio.to_thread(self._look, wall_clock()) if on else StoreUse()

    def _look(self, now: float) -> StoreUse:
        shelf = self.shelf()
        if shelf is None:
            return StoreUse(looked_at=now, error=self._told)
        try:
            shelf.expire(self._config().store.keep_s, now)
            volumes = shelf.volumes()
            room = shelf.held_bytes() + shelf.free_bytes()
        except OSError as error:  # read-only or gone
            return StoreUse(looked_at=now, error=f"{shelf.root}: {error.strerror}")
        return StoreUse(
            looked_at=now,
            room_bytes=min(max(room, 0), shelf.bytes_max),
            fills=sum_fills(volumes),
            oldest_use_at=volumes[-1].used_at if volumes else 0.0,
            evicted_pages=shelf.evicted_pages(),
        )


def sum_fills(volumes: Iterable[StoredVolume]) -> dict[str, FilledShare]:
    """Sum up what volumes hold, by where it came from; a source of none is not among them."""
    found: dict[str, FilledShare] = {}
    for each in volumes:
        before = found.get(each.head.fill, FilledShare())
        found[each.head.fill] = FilledShare(
            pages=before.pages + each.head.pages, held_bytes=before.held_bytes + each.held_bytes
        )
    return found
