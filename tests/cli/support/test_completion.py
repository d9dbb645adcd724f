"""Names that a shell completes, asked of the agent; the shell's part is click's."""

from collections.abc import Callable
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from dwcp_migrate.api.limits import LinkLimit, LinkLimits
from dwcp_migrate.cli import root

Make = Callable[..., Any]


def completed(words: list[str], begun: str) -> list[str]:
    """What a shell would offer."""
    found = ShellComplete(root, {}, "dwcp-migrate", "_DWCP_MIGRATE_COMPLETE").get_completions(words, begun)
    return [one.value for one in found]


@pytest.fixture(autouse=True)
def asked(agent: Any, ended: Make, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DWCP_MIGRATE_SOCKET", str(agent.socket_path))
    agent.ended = [ended(domain="web2"), ended(domain="db", id="bb" * 16)]
    agent.more["/v1/limits"] = LinkLimits(limits=[LinkLimit(peer="hv2"), LinkLimit(peer="hv3"), LinkLimit(peer="xen")])
    return agent


@pytest.mark.parametrize("words", [["check"], ["limit"], ["predict", "web1", "--to"], ["history", "--peer"]])
def test_peers_are_completed(words: list[str]) -> None:
    assert completed(words, "hv") == ["hv2", "hv3"]


@pytest.mark.parametrize("words", [["show"], ["report"], ["abort"], ["history", "--domain"]])
def test_migrations_are_completed_by_domain_or_id(words: list[str]) -> None:
    assert completed(words, "web") == ["web1", "web2"]
    assert completed(words, "bb") == ["bbbbbbbb"]


def test_without_an_agent_nothing_is_offered_and_nothing_said(
    asked: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DWCP_MIGRATE_SOCKET", str(asked.socket_path) + ".none")
    assert completed(["show"], "") == []
    assert capsys.readouterr() == ("", "")
