"""Online placement: the best host for a domain, or for a batch at once, while other placements are under way.

The rule here: a placement is a reservation from the moment that it is answered. A batch is placed whole or not at
all. The caller commits it (the domain runs there), or releases it; otherwise it expires.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.arrays import NOWHERE
from dwcp_migrate.placement.kernels.search import place_items, put_item, take_item
from dwcp_migrate.placement.model import Problem


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place that is held.

    Attributes:
        domains: names, of the batch.
        hosts: of each.
        expires_at: seconds on the caller's clock.
    """

    domains: tuple[str, ...]
    hosts: tuple[str, ...]
    expires_at: float


class Placer:
    """Places domains of a fleet.

    Args:
        problem: all domains that will ever be asked for; those without a host can be placed.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._index = {domain.name: number for number, domain in enumerate(problem.fleet.domains)}
        model = problem.model
        shares = model.demand[:, :, None] / np.where(problem.capacity > 0, problem.capacity, np.inf)[None]
        self._size = shares.max(axis=1).mean(axis=1) if shares.size else np.zeros(len(model.demand))
        self._held: dict[str, Reservation] = {}

    def place(self, names: Sequence[str], expires_at: float = float("inf")) -> Reservation:
        """Find hosts for a batch, the largest domain first, and hold them.

        Domains that a hard rule keeps together on one host come together: all of them are placed when one is asked for.

        Args:
            names: of the domains.
            expires_at: seconds on the caller's clock; infinite for never.

        Raises:
            PlacementError: no such domain, one has a place already, or not all fit; then nothing is held.
        """
        problem = self.problem
        items = sorted({self._item(name) for name in names}, key=lambda item: (-self._size[item], item))
        failed = int(place_items(problem.table, np.array(items, np.int64)))
        if failed != NOWHERE:
            raise PlacementError(
                f"no host takes {problem.item_name(items[failed])}",
                hint="`dwcp-migrate hosts` shows what is promised on each, `dwcp-migrate rules list` what else holds",
            )
        domains = tuple(problem.fleet.domains[number].name for item in items for number in problem.items[item])
        hosts = tuple(problem.hosts[problem.state.host[self._item_of(name)]] for name in domains)
        held = Reservation(domains, hosts, expires_at)
        self._held |= dict.fromkeys(domains, held)
        return held

    def commit(self, held: Reservation) -> None:
        """Note that the domains run where they were placed: the reservation no longer expires.

        Raises:
            PlacementError: it has expired or was released.
        """
        self._drop(held)

    def release(self, held: Reservation) -> None:
        """Give the places back.

        Raises:
            PlacementError: it has expired, was committed, or was released before.
        """
        self._drop(held)
        for item in {self._item_of(name) for name in held.domains}:
            take_item(self.problem.table, item)

    def remove(self, name: str) -> None:
        """Note that a domain that ran has ended.

        Raises:
            PlacementError: no such domain, or it is held or nowhere.
        """
        item = self._item_of(name)
        if name in self._held or self.problem.state.host[item] < 0:
            raise PlacementError(f"{name} does not run")
        take_item(self.problem.table, item)

    def add(self, name: str, host: str) -> None:
        """Note that a domain runs on a host without having been placed here.

        Args:
            name: of the domain.
            host: its name.

        Raises:
            PlacementError: no such domain or host, or it is placed already.
        """
        put_item(self.problem.table, self._item(name), self.problem.host_index(host))

    def expire(self, now: float) -> list[Reservation]:
        """Release reservations that expired by `now`."""
        late = list(dict.fromkeys(held for held in self._held.values() if held.expires_at <= now))
        for held in late:
            self.release(held)
        return late

    def _item_of(self, name: str) -> int:
        number = self._index.get(name)
        if number is None:
            raise PlacementError(f"no domain {name}")
        return self.problem.item_of[number]

    def _item(self, name: str) -> int:
        item = self._item_of(name)
        if self.problem.state.host[item] >= 0:
            raise PlacementError(f"{name} has a place already", hint="dwcp-migrate migrate moves a domain that runs")
        return item

    def _drop(self, held: Reservation) -> None:
        if any(self._held.get(name) is not held for name in held.domains):
            raise PlacementError("the reservation is no longer held")
        for name in held.domains:
            del self._held[name]
