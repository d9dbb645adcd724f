"""The lease of a plan on real agents and their shared state: one holder in the fleet, prolonged, and lost in time."""

import signal
import threading
from pathlib import Path

import pytest

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.api.cluster import Changed, HeldLease
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.orchestration.plan_journal import PlanJournal
from dwcp_migrate.orchestration.shared_state import LEASE, SharedState
from dwcp_migrate.placement.cost import PlacementPolicy
from tests.agent.hosts import Host
from tests.agent.test_tickets import BOTH, agreed
from tests.orchestration.world import World, progress

LEASE_S = 6.0


def shared(host: Host) -> SharedState:
    return SharedState(ApiClient(host.directory / "run" / "api.sock"), LEASE_S)


@pytest.fixture
def fleet(hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    """Two voters: without one of them nothing is agreed to."""
    for host in hosts:
        host.tables["coordination"] = {"voters": BOTH, "timeout_s": 1.0}
        host.spawn()
    for host in hosts:
        host.ready()
    agreed(hosts)
    return hosts


def test_a_plan_holds_the_lease_until_its_end_and_the_next_host_takes_it(fleet: tuple[Host, Host]) -> None:
    mine, other = map(shared, fleet)
    lost = threading.Event()
    with mine.lease(lost.set):
        assert not lost.wait(LEASE_S * 1.25)  # it outlives itself
        with pytest.raises(CoordinationError, match=r"source\.lab holds the lease"), other.lease(lost.set):
            pass
    assert not lost.is_set()
    with other.lease(lost.set), pytest.raises(CoordinationError, match=r"destination\.lab holds"), mine.lease(lost.set):
        pass


def test_a_plan_whose_lease_cannot_be_prolonged_begins_nothing_more(fleet: tuple[Host, Host], tmp_path: Path) -> None:
    world, (_, voter) = World(tmp_path), fleet
    executor = world.executor(PlacementPolicy(running_max=1))
    held_since = 0.0

    def lose(*_: str) -> None:
        voter.stop(signal.SIGKILL)
        assert executor.stop.wait(LEASE_S)

    world.hypervisors.before_migration = lose
    plan = world.drain("hv1")
    assert len(plan.steps) > 1
    with PlanJournal.begin(world.path, plan) as journal:
        held_since = steady_clock()
        with shared(fleet[0]).lease(executor.stop.set):
            executor.run(journal)
            assert steady_clock() < held_since + LEASE_S * 4 / 3  # within its life: it was prolonged after a third
    assert len(world.hypervisors.migrations) == 1
    assert progress(world.path).ended == "stopped"


def test_a_lease_that_another_had_meanwhile_is_lost(fleet: tuple[Host, Host]) -> None:
    mine, lost = shared(fleet[0]), threading.Event()
    with mine.lease(lost.set):
        taken = mine.client.change("locks/acquire", HeldLease, name=LEASE, lifetime_s="60")
        mine.client.change("locks/release", Changed, name=LEASE, token=str(taken.token))
        with shared(fleet[1]).lease(lost.set):
            pass
        assert lost.wait(LEASE_S)
