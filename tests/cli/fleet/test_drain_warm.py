"""`drain HOST --warm` and `--at`: what the agents are handed, and what happens where there is none that keeps plans."""

from pathlib import Path
from typing import Any

import pytest

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.api.plans import PlanList, PlanRecord, PlanRequest, StoredPlan, WarmFirst, WarmMove, decode_record
from dwcp_migrate.api.schema import Failure
from dwcp_migrate.cli.fleet import drain
from dwcp_migrate.cli.fleet.drain import Emptying
from dwcp_migrate.cli.plans.warm_first import WARM_FOR_S, WarmWords
from dwcp_migrate.config import Config
from dwcp_migrate.errors import DwcpError, PlacementError
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.orchestration.fleet_source import SETTINGS_NAME
from dwcp_migrate.orchestration.workspace import Workspace
from dwcp_migrate.placement.plan import Goal
from tests.orchestration.world import World

WORDS = WarmWords(warm=True, for_s=WARM_FOR_S, bytes_per_s=5e6)
GOAL = Goal(purpose="drain", host="hv1")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def ours(world: World, agent: Any, directory: Path) -> Workspace:
    return Workspace(
        Config(name="hv1", state_directory=directory), world.source, world.hosts, client=ApiClient(agent.socket_path)
    )


def asked(*, at: float | None = None) -> Emptying:
    return Emptying("hv1", None, MigrationOptions(), WORDS, at, here=False, as_json=False)


def keeps(agent: Any, *records: PlanRecord) -> None:
    """Have the agent keep these plans, and take a new one for the first of them."""
    plans = [StoredPlan(revision=1, record=one) for one in records]
    agent.more |= {"/v1/plans": PlanList(plans=plans), "/v1/plans/put": plans[0]}


def handed(agent: Any) -> WarmFirst:
    """The warm-ups that the agent was handed with a plan."""
    (written,) = [body for body in agent.bodies if body]
    order = decode_record(written).request.warm_first
    assert order is not None
    return order


@pytest.mark.parametrize("at", [None, 5_000_000_000.0])
def test_the_plan_is_shown_and_handed_over_with_its_guests_in_order(
    world: World, agent: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], at: float | None
) -> None:
    keeps(agent, PlanRecord(request=PlanRequest(goal=GOAL), id=1, state="completed"))
    assert drain._empty(ours(world, agent, tmp_path), asked(at=at)) == 0
    order = handed(agent)
    assert (order.waits, order.bytes_per_s) == (at is not None, 5e6)
    assert at is None or order.begins_at == at
    shown = [line.split()[1:4] for line in capsys.readouterr().out.splitlines() if " hv1 " in line]
    assert [WarmMove(*one) for one in shown] == order.moves
    assert {one.domain for one in order.moves} == world.names("hv1")


def test_without_an_agent_that_keeps_plans_guests_are_not_warmed_up_but_move(
    world: World, agent: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.failure = (404, Failure(error="no such path"))
    assert drain._empty(ours(world, agent, tmp_path), asked()) == 0
    assert "no guest is warmed up: no such path" in capsys.readouterr().err
    assert world.names("hv1") == set()


def test_without_such_an_agent_nothing_begins_before_its_time(world: World, agent: Any, tmp_path: Path) -> None:
    agent.failure = (404, Failure(error="no such path"))
    before = world.names("hv1")
    with pytest.raises(DwcpError, match="no such path"):
        drain._empty(ours(world, agent, tmp_path), asked(at=5_000_000_000.0))
    assert world.names("hv1") == before
    assert not (tmp_path / SETTINGS_NAME).exists(), "the host takes domains as before"


def test_a_plan_that_is_kept_for_another_time_is_not_changed_in_silence(
    world: World, agent: Any, tmp_path: Path
) -> None:
    order = WarmFirst(begins_at=5_000_000_000.0, waits=True)
    keeps(agent, PlanRecord(request=PlanRequest(goal=GOAL, warm_first=order), id=4))
    with pytest.raises(PlacementError, match="plan 4 is to drain hv1 already, and not at that time"):
        drain._empty(ours(world, agent, tmp_path), asked(at=5_000_000_060.0))
    drain._check_time(PlanRecord(request=PlanRequest(goal=GOAL, warm_first=order)), 5_000_000_000.0)
    assert [body for body in agent.bodies if body] == []


def test_a_plan_that_a_terminal_began_is_no_plan_for_a_time(
    world: World, agent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "unended", lambda *_: True)
    with pytest.raises(PlacementError, match="has begun in a terminal"):
        drain._empty(ours(world, agent, tmp_path), asked(at=5_000_000_000.0))
