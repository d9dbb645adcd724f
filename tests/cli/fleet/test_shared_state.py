"""Placement's commands where the fleet has shared state: they ask the agent for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dwcp_migrate.api.cluster import PlacementConstraints
from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.orchestration.fleet_source import read_settings
from dwcp_migrate.state.fleet.model import RuleRecord

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path, agent: Any) -> str:
    path = tmp_path / "agent.toml"
    path.write_text(
        f'name = "hv1"\nlibvirt_uri = "test:///default"\nstate_directory = "{tmp_path}/state"\n'
        f'runtime_directory = "{tmp_path}"\n[coordination]\nengine = "etcd"\n'
    )
    agent.more["/v1/standing"] = PlacementConstraints(
        is_fresh=True, rules=[RuleRecord(name="web", kind="apart", domains=["a", "b"])]
    )
    return str(path)


def test_rules_are_the_fleets(call: Call, agent: Any, config: str, tmp_path: Path) -> None:
    code, out, _ = call("rules", "list", "--json", "--config", config)
    assert (code, [rule["name"] for rule in json.loads(out)]) == (0, ["web"])
    assert call("rules", "add", "db", "pin", "x", "--zone", "hv1", "--config", config)[0] == 0
    assert call("rules", "remove", "web", "--config", config)[0] == 0
    assert agent.posted == [("/v1/rules/put", {}), ("/v1/rules/remove", {"name": "web"})]
    assert read_settings(tmp_path / "state/placement.json").rules == []


def test_undrain_clears_the_mark(call: Call, agent: Any, config: str) -> None:
    assert call("undrain", "hv1", "--config", config)[0] == 0
    assert agent.posted == [("/v1/cluster/undrain", {"name": "hv1"})]


def test_no_plan_is_made_on_an_old_answer(call: Call, agent: Any, config: str) -> None:
    agent.more["/v1/standing"] = PlacementConstraints(is_fresh=False)
    code, _, err = call("rebalance", "--config", config)
    assert (code, "may have changed" in err) == (CoordinationError.exit_code, True)
