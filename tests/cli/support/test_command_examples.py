"""Each command shows examples, and each line of them is one that the command line takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dwcp_migrate.cli import root
from dwcp_migrate.cli.support.examples import EXAMPLES

NAME = "dwcp-migrate"


def leaves(group: click.Group, words: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=words)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from leaves(found, f"{words} {name}".strip())
        else:
            yield f"{words} {name}".strip(), found


LEAVES = dict(leaves(root))


def test_every_command_has_examples_and_every_example_a_command() -> None:
    assert set(EXAMPLES) == {words for words, command in LEAVES.items() if not command.hidden}


@pytest.mark.parametrize("words", sorted(EXAMPLES))
def test_the_command_line_takes_each_example(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet.dwcp").touch()
    monkeypatch.chdir(tmp_path)
    assert "Examples:" in (LEAVES[words].epilog or "")
    for line in EXAMPLES[words]:
        own = re.split(r" (?:\||&&|>) ", line)[0]
        said, *arguments = shlex.split(own)
        assert said == NAME
        parsed(root, arguments)


def parsed(command: click.Command, arguments: list[str]) -> None:
    """Parse a command line as click does, and run nothing."""
    parent = None
    while isinstance(command, click.Group):
        parent = click.Context(command, parent=parent, info_name=command.name)
        _, below, arguments = command.resolve_command(parent, arguments)
        assert below is not None
        command = below
    command.make_context(command.name, arguments, parent=parent)
