"""The fleet's shared state as placement's commands use it, by way of the local agent.

The rule here: where shared state is configured it must answer, or the command fails: a plan without the fleet's rules,
or at the same time as another operator's, would be wrong.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from dwcp_migrate.api.client import TIMEOUT_S, ApiClient
from dwcp_migrate.api.cluster import Changed, HeldLease, PlacementConstraints
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.errors import CoordinationError, DwcpError
from dwcp_migrate.orchestration.fleet_constraints import constrain_fleet
from dwcp_migrate.orchestration.fleet_source import FleetSource
from dwcp_migrate.placement.fleet import Fleet, Rule

LEASE: Final = "placement"
"""Name of the lease that the carrier of a plan holds; there is one carrier in the fleet."""

LEASE_S: Final = 60.0
"""Life of the lease; it is prolonged three times within."""

RETRIES: Final = 12
"""Tries to prolong it, within its life, where the first failed."""


@dataclass(frozen=True, slots=True)
class SharedState:
    """The fleet's state.

    Attributes:
        client: the local agent.
        lease_s: life of the lease.
    """

    client: ApiClient
    lease_s: float = LEASE_S

    def read_constraints(self) -> PlacementConstraints:
        """The part of the cluster state that placement must respect.

        Raises:
            CoordinationError: the fleet cannot be asked.
            AgentUnreachableError: nor the agent.
        """
        found = self.client.ask("standing", PlacementConstraints)
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
        """Tell the fleet that a host takes no domains, or takes them again.

        Args:
            host: its name.
            draining: True from now on, False to end it.

        Raises:
            CoordinationError: the fleet cannot be asked, or says no.
        """
        self.client.change("cluster/drain" if draining else "cluster/undrain", Changed, name=host)

    @contextmanager
    def lease(self, lost: Callable[[], None]) -> Iterator[None]:
        """Hold the lease while a plan is carried out.

        Args:
            lost: called once, from a thread, while the lease still holds, when it may not be prolonged in time; or at
                once when another host had it meanwhile.

        Raises:
            CoordinationError: another host holds it.
        """
        asked = steady_clock()
        held = self._acquire()
        over = threading.Event()
        thread = threading.Thread(target=self._prolong, args=(held, asked, over, lost), name="lease")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(DwcpError):  # it ends by itself
                self.client.change("locks/release", Changed, name=LEASE, token=str(held.token))

    def _acquire(self) -> HeldLease:
        return self.client.change("locks/acquire", HeldLease, name=LEASE, lifetime_s=str(self.lease_s))

    def _prolong(self, held: HeldLease, since: float, over: threading.Event, lost: Callable[[], None]) -> None:
        """Prolong it until it is given back; its life counts from when it was asked for, not from the answer."""
        retry_s = self.lease_s / RETRIES
        wait_s = self.lease_s / 3
        while not over.wait(wait_s):
            asked = steady_clock()
            try:
                again = self._acquire()
            except DwcpError:
                wait_s = retry_s
                if steady_clock() + retry_s + min(TIMEOUT_S, self.lease_s / 4) > since + self.lease_s:
                    lost()  # the next try could end after the lease
                    return
                continue
            if again.token != held.token:  # it had expired: another host may have moved domains
                lost()
                return
            since, wait_s = asked, self.lease_s / 3


@dataclass(frozen=True, slots=True)
class SharedFleet:
    """A fleet under what its shared state says; a `FleetSource`."""

    inner: FleetSource
    shared: SharedState

    def snapshot(self) -> Fleet:
        """See `FleetSource.snapshot`."""
        constraints = self.shared.read_constraints()
        return constrain_fleet(self.inner.snapshot(), constraints)
