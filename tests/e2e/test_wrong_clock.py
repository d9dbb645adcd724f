"""One host's clock jumps 70 years ahead and back while a guest migrates: the fleet's time goes on, nothing is lost."""

import os
import time
from collections.abc import Iterator

import pytest

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.clock import YEAR_S, WrongClock
from dwcp_migrate.lab.hosts.agents import give
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.state.fleet.fleet_clock import SKEW_S
from tests.e2e.small_fleet import NAMES, SmallFleet
from tests.e2e.world import WAN

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

WRONG = "hv3"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.up(LabOptions(name=f"clock-{os.getpid()}", hosts=len(NAMES), link=WAN, owned=True)) as found:
        yield found


def acquires(lab: Lab, name: str) -> bool:
    """Have a host take the lease for two seconds; tells whether it got it."""
    try:
        lab.agents[name].post("/v1/locks/acquire?name=one&lifetime_s=2")
    except LabError as error:
        if "holds the lease one" not in str(error):
            raise
        return False
    return True


def settle(fleet: SmallFleet) -> None:
    """Wait until no ticket is open: a guest that leaves before that goes unaccelerated."""
    agent = fleet.lab.agents["hv2"]
    fleet.until(lambda: all(one["state"] != "running" for one in agent.get("/v1/tickets")["tickets"]))


def test_a_clock_70_years_ahead_and_back_costs_no_migration_and_freezes_no_time(lab: Lab) -> None:
    directory = lab[WRONG].directory / "clock"
    clock = WrongClock(directory)
    give(lab[WRONG], directory)
    fleet = SmallFleet(lab, {WRONG: clock.environment})

    record = fleet.migrate_while(lambda: clock.set(70 * YEAR_S), WRONG)
    assert record.passthrough_reason == ""
    assert lab.agents[WRONG].get("/v1/status")["now"] > time.time() + 69 * YEAR_S
    fleet.agree()
    for name in ("hv1", "hv2"):
        assert lab.agents[name].get("/v1/locks")["now"] <= time.time() + SKEW_S + 1
    assert acquires(lab, "hv1")
    assert not acquires(lab, "hv2")
    fleet.until(lambda: acquires(lab, "hv2"))  # it runs out, though later by what a clock may be ahead
    settle(fleet)
    record = fleet.migrate_while(
        lambda: None, "hv2" if fleet.host().name == "hv1" else "hv1"
    )  # to the wrong clock's host
    assert fleet.host().name == WRONG

    settle(fleet)
    clock.set(0)
    fleet.agree()
    record = fleet.migrate_while(lambda: None, "hv2")
    assert record.passthrough_reason == "", record
