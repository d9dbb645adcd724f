"""What `--json` prints is a contract: described, versioned, and JSON also where a command fails."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator

from dwcp_migrate import errors
from dwcp_migrate.cli import kind_of, root, run
from dwcp_migrate.cli.support.contract import PRINTED, commands_schema
from dwcp_migrate.cli.support.schema import commands_with_json, leaves
from tests.cli.conftest import make_ended

DOCS = Path(__file__).parents[2] / "docs"
WITHOUT = {"agent", "schema"}
"""Commands that print no answer: the agent, which logs, and the schema itself, which is JSON in any case."""


def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(commands_schema(commands_with_json())))
    return found


def test_the_copy_in_the_documents_is_what_the_code_describes() -> None:
    copy = DOCS / "schemas" / "commands.json"
    assert json.loads(copy.read_text()) == described(), f"dwcp-migrate schema > {copy}"


def test_every_command_takes_json() -> None:
    assert {words for words, _ in leaves(root, "")} - set(commands_with_json()) == WITHOUT


def test_the_table_says_of_each_command_what_it_prints() -> None:
    assert PRINTED.keys() == set(commands_with_json())


def test_the_page_names_every_kind_of_failure_with_its_exit_code() -> None:
    page = (DOCS / "json.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", page, re.MULTILINE))
    kinds: dict[str, str] = {"usage": "2", "interrupted": "130", "internal": "70"}
    waiting = [errors.DwcpError]
    while waiting:
        one = waiting.pop()
        waiting += [kind for kind in one.__subclasses__() if kind.__module__ == errors.__name__]
        kinds[kind_of(one.__new__(one))] = str(one.exit_code)
    assert rows == kinds


@pytest.mark.parametrize("words", commands_with_json())
def test_wrong_usage_of_any_command_is_an_object_under_json(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words.split(), "--json", "--no-such-option"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["exit_code"]) == ("usage", 2)
    Draft202012Validator({**described()["failure"], "$defs": described()["$defs"]}).validate(told)


@pytest.mark.parametrize("command", ["status", "history", "events", "top", "plans", "tickets", "reload", "sysdump"])
def test_an_agent_that_does_not_answer_is_an_object_under_json(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run([command, "--json", "--socket", str(tmp_path / "nobody.sock")])
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["format_version"] == 1
    if command != "sysdump":  # which says of each part that it was not to be had
        assert (code, told["kind"], err) == (4, "agent-unreachable", "")
        assert "is it running?" in told["hint"]


def test_a_fault_of_ours_is_an_object_under_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(click.Group, "invoke", fail)
    assert run(["status", "--json"]) == 70
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "internal"
    assert Path(told["report"]).read_text().count("unforeseen")
    Path(told["report"]).unlink()


def test_each_object_of_a_list_says_its_version(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    agent.history = [make_ended(), make_ended(id="bb" * 16)]
    assert run(["history", "--json", "--socket", str(agent.socket_path)]) == 0
    assert {one["format_version"] for one in json.loads(capsys.readouterr().out)} == {1}


def test_a_stream_is_an_object_a_line(agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", "--json", "-n", "2", "--interval", "0.2", "--socket", str(agent.socket_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    schema = {**described()["commands"]["top"]["schema"], "$defs": described()["$defs"]}
    for line in lines:
        Draft202012Validator(schema).validate(json.loads(line))
    assert len(lines) == 2
