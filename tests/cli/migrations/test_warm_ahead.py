"""`migrate --warm`: the guest is warmed up while that is of use, and whatever is refused, the migration goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from msgspec.structs import replace

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.api.schema import Failure
from dwcp_migrate.api.warm import WarmUp, WarmUpList
from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.migrations import migrate, warm
from dwcp_migrate.cli.migrations.warm_ahead import warm_ahead
from dwcp_migrate.cli.plans.warm_first import WarmWords
from dwcp_migrate.config import Config
from dwcp_migrate.errors import UnfinishedError
from dwcp_migrate.orchestration.measured_load import LoadedFleet
from dwcp_migrate.orchestration.workspace import Workspace
from dwcp_migrate.placement.plan import Figures, Goal, Plan, Step

FIGURES = Figures(fullest=0.0, mean=0.0, deviation=0.0, broken=0)
STEP = Step(number=0, domain="web1", source="hv1", destination="hv2")
BEGUN = WarmUp(id="a1", domain="web1", uuid="u1", peer="hv2", started_at=0.0)
FIRST = replace(BEGUN, passes=1, pages=1000, wire_bytes=2 << 20)
WORDS = WarmWords(warm=True, for_s=600.0, bytes_per_s=25e6)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "LOOK_S", 0.001)


def plan_of(*steps: Step) -> Plan:
    return Plan(goal=Goal(purpose="migrate", domain="web1"), steps=list(steps), before=FIGURES, after=FIGURES)


def ours(agent: Any) -> Workspace:
    return Workspace(Config(name="hv1"), None, None, client=ApiClient(agent.socket_path))  # type: ignore[arg-type]


def answers(agent: Any, *states: WarmUp) -> None:
    """Have the agent show these states one after the other; once it is told to end, the last one as over."""
    left, find, ended = list(states), agent.answer, list[bool]()

    def answer(method: str, target: str) -> tuple[int, bytes]:
        if (method, target) == ("GET", "/v1/warm"):
            one = left.pop(0) if len(left) > 1 else left[0]
            one = replace(one, state="ended", detail="ended by command") if ended else one
            agent.more["/v1/warm"] = WarmUpList(warm_ups=[one])
        elif method == "POST":
            ended.extend([True] if "end" in target.partition("?")[0] else [])
            agent.more |= {"/v1/warm": BEGUN, "/v1/warm/end": BEGUN}
        found: tuple[int, bytes] = find(method, target)
        return found

    agent.answer = answer


def test_it_ends_with_the_pass_that_brings_little(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answers(agent, FIRST, FIRST, replace(FIRST, passes=2, pages=2000, known_pages=990))
    warm_ahead(ours(agent), plan_of(STEP), WORDS, quiet=False)
    (begun, ended) = agent.posted
    assert begun[1].pop("for_s") > "599"
    assert begun == ("/v1/warm", {"domain": "web1", "peer": "hv2", "bytes_per_s": "25000000.0"})
    assert ended == ("/v1/warm/end", {"id": "a1"})
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("web1: 2000 pages carried to hv2 in 2 passes, 990 of them were there already,"
                             " 2.0 MiB sent; ended by command\n")  # fmt: skip


def test_it_ends_with_its_time(agent: Any) -> None:
    answers(agent, FIRST, replace(FIRST, state="ended", detail="its time is over"))
    warm_ahead(ours(agent), plan_of(STEP), WORDS, quiet=True)
    assert [path for path, _ in agent.posted] == ["/v1/warm"]


def test_one_that_fails_or_is_refused_is_said_in_words(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answers(agent, replace(BEGUN, state="failed", error="hv2 refused: it has no page store"))
    warm_ahead(ours(agent), plan_of(STEP), WORDS, quiet=True)
    agent.failure = (400, Failure(error="this host has no page store"))
    warm_ahead(ours(agent), plan_of(STEP), WORDS, quiet=True)
    assert capsys.readouterr().err.splitlines() == [
        "web1 is not warmed up: hv2 refused: it has no page store; it migrates without",
        "web1 is not warmed up: this host has no page store; it migrates without",
    ]


def test_a_guest_of_another_host_and_one_for_which_no_time_is_left_are_not_asked_for(
    agent: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    warm_ahead(ours(agent), plan_of(replace(STEP, source="hv3")), WORDS, quiet=True)
    warm_ahead(ours(agent), plan_of(STEP), WarmWords(warm=True, for_s=0.5, bytes_per_s=0.0), quiet=True)
    err = capsys.readouterr().err
    assert "it runs on hv3, and only the agent there can do that; it migrates without" in err
    assert "there was no time for it; it migrates without" in err
    assert agent.posted == []


def test_ctrl_c_ends_it_and_moves_nothing(
    agent: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    answers(agent, BEGUN)
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(click.exceptions.Exit) as caught:
        warm_ahead(ours(agent), plan_of(STEP), WORDS, quiet=True)
    assert caught.value.exit_code == UnfinishedError.exit_code
    assert "nothing was moved" in capsys.readouterr().err
    assert agent.posted[-1] == ("/v1/warm/end", {"id": "a1"})


def test_the_command_warms_up_before_it_migrates_and_migrates_whatever_came_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    order = list[str]()
    monkeypatch.setattr(migrate, "warm_ahead", lambda *_, **__: order.append("warm"))

    def carry_out(*_: object, **__: object) -> int:
        order.append("migrate")
        return 0

    monkeypatch.setattr(planning, "carry_out", carry_out)
    monkeypatch.setattr("dwcp_migrate.placement.planner.plan_migrate", lambda *_: plan_of(STEP))
    monkeypatch.setattr(LoadedFleet, "snapshot", lambda _: None)
    (tmp_path / "agent.toml").write_text(f'name = "hv1"\nstate_directory = "{tmp_path}"\n')
    config = ("--config", str(tmp_path / "agent.toml"))
    assert call("migrate", "web1", "hv2", "--warm", *config)[0] == 0
    assert call("migrate", "web1", "hv2", *config)[0] == 0
    assert call("migrate", "web1", "hv2", "--warm", "--dry-run", *config)[0] == 0
    assert order == ["warm", "migrate", "migrate"]
