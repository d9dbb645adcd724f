"""The placement commands on fleets from files, and the settings that they keep."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.cli import run
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import EXACT_S_MAX
from dwcp_migrate.config import Config
from dwcp_migrate.errors import HypervisorError, NotFoundError, PlacementError
from dwcp_migrate.orchestration.fleet_source import read_settings
from dwcp_migrate.orchestration.plan_journal import JOURNAL_NAME, PlanJournal, read
from dwcp_migrate.orchestration.workspace import own_name
from dwcp_migrate.placement.fleet import Rule, encode_fleet
from dwcp_migrate.placement.plan import decode_plan
from dwcp_migrate.placement.planner import plan_drain
from tests.packaging import test_command_lines as command_lines
from tests.placement.fleets import domain, fleet, host

Say = Callable[..., tuple[int, str, str]]

FLEET = fleet(
    [host("hv1"), host("hv2"), host("hv3", vcpus=2)],
    [*(domain(f"vm{number}", "hv1") for number in range(4)), domain("new")],
    Rule(name="pair", kind="apart", domains=["vm0", "vm1"]),
)


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command with a configuration whose state is in a directory of the test's."""
    (tmp_path / "fleet.json").write_bytes(encode_fleet(FLEET))
    (tmp_path / "agent.toml").write_text(
        f'name = "hv1"\nlibvirt_uri = "test:///default"\nstate_directory = "{tmp_path}/state"\n'
    )

    def said(*words: str) -> tuple[int, str, str]:
        filled = [
            word.format(fleet=tmp_path / "fleet.json", config=tmp_path / "agent.toml", here=tmp_path) for word in words
        ]
        code = run(filled)
        out = capsys.readouterr()
        return code, out.out, out.err

    return said


def test_hosts_are_listed_from_a_file_and_from_libvirt(say: Say) -> None:
    code, out, _ = say("hosts", "--fleet", "{fleet}")
    assert code == 0
    assert "hv3" in out
    code, out, _ = say("hosts", "--config", "{config}", "--measure", "0.01", "--json")
    assert code == 0
    assert [(row["name"], row["domains"], row["state"]) for row in json.loads(out)] == [("hv1", 1, "up")]


def test_place_names_a_host_and_says_why_not_the_others(say: Say) -> None:
    code, out, _ = say("place", "new", "--fleet", "{fleet}")
    assert code == 0
    assert "new -> hv2: the host would be at" in out
    code, out, _ = say("place", "a", "b", "--apart", "--vcpus", "2", "--fleet", "{fleet}", "--json")
    assert code == 0
    placed = json.loads(out)
    assert [one["domain"] for one in placed] == ["a", "b"]
    assert len({one["host"] for one in placed}) == 2
    code, _, err = say("place", "vm0", "--fleet", "{fleet}")
    assert (code, "runs already" in err) == (PlacementError.exit_code, True)
    code, _, err = say("place", "huge", "--vcpus", "99", "--fleet", "{fleet}")
    assert (code, "no host takes huge" in err) == (PlacementError.exit_code, True)


def test_plans_are_shown_and_explained_but_a_file_is_never_changed(say: Say, tmp_path: Path) -> None:
    for words in (["drain", "hv1", "--dry-run"], ["rebalance"], ["migrate", "vm0", "--dry-run"]):
        code, out, _ = say(*words, "--fleet", "{fleet}", "--json")
        assert code in {0, PlacementError.exit_code}
        plan = decode_plan(output.without_version(out.encode()))
        assert plan.steps
        (tmp_path / "plan.json").write_text(out)
        code, out, _ = say("explain", "{here}/plan.json", "--fleet", "{fleet}")
        assert code == 0
        assert f"{plan.steps[0].domain} -> {plan.steps[0].destination}" in out
        code, out, _ = say(*words, "--fleet", "{fleet}")
        assert "Domain" in out
    for words in (["drain", "hv1"], ["rebalance", "--apply"], ["migrate", "vm0"]):
        code, _, err = say(*words, "--fleet", "{fleet}")
        assert (code, "not changed" in err) == (PlacementError.exit_code, True)
    assert not (tmp_path / "state").exists()


def test_an_exact_plan_says_how_far_from_the_best_it_is(say: Say) -> None:
    for words in (["rebalance"], ["drain", "hv1", "--dry-run"]):
        code, out, _ = say(*words, "--exact", "20", "--fleet", "{fleet}")
        assert (code, "at best the fullest host is 0.0 % emptier" in out) == (0, True)
        code, out, _ = say(*words, "--exact", "20", "--fleet", "{fleet}", "--json")
        assert decode_plan(output.without_version(out.encode())).proof is not None
    for seconds in ("0", str(EXACT_S_MAX + 1)):
        assert say("rebalance", "--exact", seconds, "--fleet", "{fleet}")[0] == 2
    assert say("drain", "--exact", "20")[0] == 2


def test_an_even_fleet_needs_nothing(say: Say, tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_bytes(
        encode_fleet(fleet([host("a"), host("b")], [domain("x", "a"), domain("y", "b")]))
    )
    code, out, _ = say("rebalance", "--fleet", "{fleet}")
    assert (code, "nothing to do: fullest host" in out) == (0, True)


def test_rules_are_kept_in_the_settings(say: Say, tmp_path: Path) -> None:
    add = ["rules", "add", "web", "apart", "web1", "web2", "--level", "rack", "--config", "{config}"]
    assert say(*add)[0] == 0
    assert say(*add)[0] == PlacementError.exit_code
    assert say("rules", "add", "p", "pin", "db", "--config", "{config}")[0] == PlacementError.exit_code
    assert say("rules", "add", "p", "pin", "db", "--zone", "hv1", "--soft", "2", "--config", "{config}")[0] == 0
    code, out, _ = say("rules", "list", "--config", "{config}")
    assert code == 0
    assert "web1 web2" in out
    assert "soft 2" in out
    code, out, _ = say("rules", "list", "--json", "--config", "{config}")
    assert [rule["name"] for rule in json.loads(out)] == ["web", "p"]
    assert say("rules", "remove", "web", "--config", "{config}")[0] == 0
    assert say("rules", "remove", "web", "--config", "{config}")[0] == NotFoundError.exit_code
    assert [rule.name for rule in read_settings(tmp_path / "state/placement.json").rules] == ["p"]


def test_undrain_takes_a_host_out_of_maintenance(say: Say, tmp_path: Path) -> None:
    code, _, err = say("undrain", "ghost", "--config", "{config}")
    assert (code, "no host ghost" in err) == (PlacementError.exit_code, True)
    assert say("undrain", "hv1", "--config", "{config}")[0] == 0
    assert read_settings(tmp_path / "state/placement.json").hosts["hv1"].state == "up"


def test_a_plan_that_has_not_ended_is_given_up_on_request(say: Say, tmp_path: Path) -> None:
    assert say("rebalance", "--abandon", "--config", "{config}")[1] == "no plan is under way\n"
    plan = plan_drain(FLEET, "hv1")
    PlanJournal.begin(tmp_path / "state" / JOURNAL_NAME, plan).close()
    code, _, err = say("migrate", "test", "--config", "{config}")
    assert code == PlacementError.exit_code
    assert "a plan has not ended: drain hv1" in err
    code, _, err = say("drain", "hv1", "--config", "{config}", "--timeout-postcopy")
    assert (code, "needs --postcopy" in err) == (2, True)
    assert say("rebalance", "--abandon", "--config", "{config}")[1] == "given up\n"
    progress = read(tmp_path / "state" / JOURNAL_NAME)
    assert progress is not None
    assert progress.ended == "abandoned"


def test_a_host_whose_libvirtd_is_silent_is_not_drained(say: Say, tmp_path: Path) -> None:
    config = (tmp_path / "agent.toml").read_text().replace("test:///default", "test:///nowhere")
    (tmp_path / "agent.toml").write_text(config)
    for more in ((), ("--dry-run",)):
        code, out, err = say("drain", "hv1", *more, "--config", "{config}")
        assert (code, out) == (HypervisorError.exit_code, "")
        assert "hv1 does not answer, and what runs there is not known: test:///nowhere" in err
        assert "hint: its guests may still run" in err
    assert not (tmp_path / "state" / JOURNAL_NAME).exists()


def test_draining_the_agent_and_draining_a_host_are_told_apart(say: Say) -> None:
    assert say("drain", "hv1", "--off")[0] == 2
    assert say("drain", "--dry-run")[0] == 2


def test_what_is_no_plan_is_refused(say: Say, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode({"steps": []}))
    assert say("explain", "{here}/plan.json", "--fleet", "{fleet}")[0] == PlacementError.exit_code
    assert say("explain", "{here}/absent.json", "--fleet", "{fleet}")[0] == NotFoundError.exit_code


def test_what_is_no_plan_is_told_how_to_get_one_without_a_migration(say: Say) -> None:
    code, _, err = say("explain", "{fleet}", "--fleet", "{fleet}")
    assert code == PlacementError.exit_code
    assert err.endswith("hint: `rebalance --json` and `drain HOST --dry-run --json` write plans\n")


def test_no_hint_names_a_drain_of_a_host_that_is_carried_out_at_once() -> None:
    hints = [text for _, text in command_lines.hints() if "drain HOST" in text]
    assert hints
    assert [text for text in hints if "drain HOST" in text.replace("drain HOST --dry-run", "")] == []


def test_a_host_that_nothing_takes_is_looked_for_by_commands_that_exist(say: Say) -> None:
    code, _, err = say("place", "big", "--vcpus", "999", "--fleet", "{fleet}")
    assert code == PlacementError.exit_code
    assert "`dwcp-migrate hosts`" in err
    assert "explain" not in err


@pytest.mark.parametrize("words", [("drain", "hv1"), ("migrate", "vm0", "hv2"), ("rebalance", "--apply")])
def test_a_fleet_from_a_file_is_only_shown(say: Say, words: tuple[str, ...]) -> None:
    code, _, err = say(*words, "--fleet", "{fleet}")
    assert code == PlacementError.exit_code
    assert err.endswith("hint: leave --fleet out, or show the plan: --dry-run\n")
    assert say(*[word for word in words if word != "--apply"], "--dry-run", "--fleet", "{fleet}")[0] == 0


def test_a_plan_of_this_host_is_not_given_up_for_a_fleet_from_a_file(say: Say) -> None:
    code, _, err = say("rebalance", "--abandon", "--fleet", "{fleet}")
    assert code == 2
    assert "leave --fleet out" in err


@pytest.mark.parametrize("words", [("explain", "none.json"), ("rebalance", "--fleet", "none.json")])
def test_a_file_that_is_not_there_is_exit_3(say: Say, words: tuple[str, ...]) -> None:
    assert say(*words)[::2] == (NotFoundError.exit_code, "error: there is no file none.json\n")


def test_the_plan_of_a_drain_counts_the_drained_host_before_it(say: Say) -> None:
    out = say("drain", "hv1", "--dry-run", "--fleet", "{fleet}")[1]
    before = msgspec.json.decode(say("rebalance", "--json", "--fleet", "{fleet}")[1])["before"]
    assert before["fullest"] > 0
    assert f"fullest host {before['fullest'] * 100:.0f} % -> " in out


@pytest.mark.parametrize("known", ["memory_mib", "vcpus"])
def test_a_resource_that_is_named_almost_like_a_known_one_is_refused(say: Say, tmp_path: Path, known: str) -> None:
    typo = {"memory_mib": "memory_mb", "vcpus": "Vcpu"}[known]
    (tmp_path / "fleet.json").write_bytes(encode_fleet(FLEET).replace(known.encode(), typo.encode()))
    code, _, err = say("rebalance", "--fleet", "{fleet}")
    assert (code, err) == (
        PlacementError.exit_code,
        f"error: fleet: resource {typo} is not known\nhint: did you mean {known}?\n",
    )


@pytest.mark.parametrize("own", ["hugepages_1g", "disk_gib", "network_mbit", "gpu_a100", "memory", "licences"])
def test_a_fleet_may_count_resources_of_its_own(say: Say, tmp_path: Path, own: str) -> None:
    whole = fleet([msgspec.structs.replace(host("hv1"), capacity={"vcpus": 4, "memory_mib": 1024, own: 3})], [])
    (tmp_path / "fleet.json").write_bytes(encode_fleet(whole))
    assert say("rebalance", "--fleet", "{fleet}")[0] == 0


def test_the_host_goes_by_the_name_of_its_agent_where_none_is_configured(agent: Any, tmp_path: Path) -> None:
    client = ApiClient(agent.socket_path)
    assert own_name(Config(), client) == agent.status.name
    assert own_name(Config(name="other"), client) == "other"
    assert own_name(Config(), ApiClient(tmp_path / "nobody")) == own_name(Config(), None) == socket.gethostname()


def test_a_plan_that_leaves_something_has_one_exit_code_whichever_command_shows_it(say: Say, tmp_path: Path) -> None:
    stuck = [msgspec.structs.replace(domain(name, "hv1"), movable=False) for name in ("vm0", "vm1")]
    whole = fleet([host("hv1"), host("hv2")], stuck, Rule(name="pair", kind="apart", domains=["vm0", "vm1"]))
    (tmp_path / "fleet.json").write_bytes(encode_fleet(whole))
    for words in (["rebalance"], ["drain", "hv1", "--dry-run"]):
        code, out, _ = say(*words, "--json", "--fleet", "{fleet}")
        assert json.loads(out)["left"]
        assert code == PlacementError.exit_code
