"""The fleet's shared state as placement's commands use it, by way of the local agent.

The rule here: where shared state is configured it is asked, and a command that cannot ask says so and ends: a plan
without the fleet's rules, or beside another operator's, would be a wrong one.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from dwcp_migrate.agent.cluster_views import Changed, Held, Standing
from dwcp_migrate.agent.fleet import FleetSource
from dwcp_migrate.agent.standing import under
from dwcp_migrate.cli.client import Client
from dwcp_migrate.errors import CoordinationError, DwcpError
from dwcp_migrate.placement.fleet import Fleet, Rule

LEASE: Final = "placement"
"""Held by whoever carries a plan out: one in the fleet."""

LEASE_S: Final = 60.0
"""Life of the lease; it is prolonged three times within."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The fleet's state.

    Attributes:
        client: the local agent.
    """

    client: Client

    def standing(self) -> Standing:
        """What placement must respect.

        Raises:
            CoordinationError: the fleet cannot be asked.
            AgentUnreachableError: nor the agent.
        """
        found = self.client.ask("standing", Standing)
        if not found.is_fresh:
            raise CoordinationError(
                "the fleet's state cannot be asked, its rules may have changed", hint="dwcp-migrate cluster status"
            )
        return found

    def put_rule(self, rule: Rule) -> None:
        """Add a rule to the fleet's."""
        self.client.change("rules/put", Changed, msgspec.json.encode(rule))

    def drop_rule(self, name: str) -> None:
        """Take one out."""
        self.client.change("rules/remove", Changed, name=name)

    def set_draining(self, host: str, *, draining: bool) -> None:
        """Tell the fleet that a host takes no domains, or takes them again."""
        self.client.change("cluster/drain" if draining else "cluster/undrain", Changed, name=host)

    @contextmanager
    def lease(self, lost: Callable[[], None]) -> Iterator[None]:
        """Hold the lease while a plan is carried out.

        Args:
            lost: called when it could not be prolonged in time.

        Raises:
            CoordinationError: another host holds it.
        """
        held = self._acquire()
        over = threading.Event()
        thread = threading.Thread(target=self._prolong, args=(over, lost), name="lease")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(DwcpError):  # it ends by itself
                self.client.change("locks/release", Changed, name=LEASE, token=str(held.token))

    def _acquire(self) -> Held:
        return self.client.change("locks/acquire", Held, name=LEASE, lifetime_s=str(LEASE_S))

    def _prolong(self, over: threading.Event, lost: Callable[[], None]) -> None:
        failures = 0
        while not over.wait(LEASE_S / 3):
            try:
                self._acquire()
                failures = 0
            except DwcpError:
                failures += 1
                if failures > 1:
                    lost()


@dataclass(frozen=True, slots=True)
class SharedFleet:
    """A fleet under what its shared state says; a `FleetSource`."""

    inner: FleetSource
    shared: Shared

    def snapshot(self) -> Fleet:
        """See `FleetSource.snapshot`."""
        standing = self.shared.standing()
        return under(self.inner.snapshot(), standing)
