"""The pages and the command line know each other: what is written there parses, what can be typed is named there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dwcp_migrate.cli import COMMANDS, root
from dwcp_migrate.refusals import UNACCELERATED

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "bench/README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LINE = re.compile(r"(?:`|\bbin/|# |^ {4})dwcp-migrate +([a-z][^`#|\n]*)", re.MULTILINE)
"""In backquotes, or as it is typed."""
SHORT = re.compile(rf"`((?:{'|'.join(COMMANDS)}) [^`\n]*)`")
"""In backquotes without the program's name: `rebalance --apply`."""


def tree(command: click.Command = root, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that lead to it, the root included."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from tree(found, (*path, name))


COMMANDS_BY_PATH = dict(tree())


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def wrong(line: str) -> str:
    """Say what a command line names that does not exist; empty if all does."""
    words = [word.strip("[].,;:") for word in line.partition(" -- ")[0].split()]
    path: tuple[str, ...] = ()
    while (*path, *words[:1]) in COMMANDS_BY_PATH and words:
        path = (*path, words.pop(0))
    command = COMMANDS_BY_PATH[path]
    if isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        return words[0]
    named = {word.partition("=")[0] for word in words if word.startswith("--")}
    return " ".join(sorted(named - options(command)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    found = {line: wrong(line) for line in LINE.findall(text) + SHORT.findall(text)}
    assert {line: what for line, what in found.items() if what} == {}


def hints() -> Iterator[tuple[str, str]]:
    """Each text that an error gives as its hint, with its place; what is filled in at run time is left out."""
    for source in sorted((REPOSITORY / "dwcp_migrate").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            is_named = isinstance(node, ast.Assign) and any(ast.unparse(one) == "hint" for one in node.targets)
            if is_named or (isinstance(node, ast.keyword) and node.arg == "hint"):
                assert isinstance(node, ast.Assign | ast.keyword)
                texts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
                yield f"{source.relative_to(REPOSITORY)}:{node.value.lineno}", "".join(map(str, texts))


def test_hints_of_errors_name_commands_and_options_that_exist() -> None:
    found = {(place, line): wrong(line) for place, text in hints() for line in LINE.findall(text) + SHORT.findall(text)}
    assert len(found) > 10
    assert {place: what for place, what in found.items() if what} == {}


TASK = re.compile(r"^ *- name: (?P<name>.*)|^( *)argv:(?: \[(?P<inline>.*)\]|(?P<lines>(?:\n\2  - .*)+))", re.MULTILINE)


def role_tasks() -> Iterator[tuple[str, list[str]]]:
    """Each command line of this program that the role types, with its task's name."""
    for file in sorted((REPOSITORY / "ansible/roles").rglob("*.yml")):
        name = ""
        for found in TASK.finditer(file.read_text()):
            name = found["name"] or name
            given = found["inline"].split(",") if found["inline"] else (found["lines"] or "").split("\n")
            argv = [word.strip().removeprefix("- ").strip("\"'") for word in given if word.strip()]
            if argv and re.search(r"bin/dwcp-migrate$|dwcp_migrate_controller_command", argv[0].strip("{} ")):
                yield name, argv[1:]


def test_the_role_types_commands_and_options_that_exist_in_their_present_spelling() -> None:
    found = list(role_tasks())
    assert len(found) > 5
    assert {name: what for name, argv in found if (what := wrong(" ".join(argv)))} == {}
    old = {name for name, argv in found if {"--wait", "--off"} & set(argv) and argv[0] == "drain"}
    assert old == {"Drain an agent of release 0.1.0, which spells it so"}


def test_the_check_itself_finds_what_does_not_exist() -> None:
    assert wrong("cluster status --json") == ""
    assert wrong("cluster stat") == "stat"
    assert wrong("drain HOST --exactly 3") == "--exactly"


def test_every_command_is_named_on_a_page() -> None:
    text = "\n".join(page.read_text() for page in PAGES if page.name != "cli.md")  # which names them all by itself
    named = [path for path in COMMANDS_BY_PATH if path and re.search(rf"\b{' '.join(path)}\b", text)]
    assert sorted(set(COMMANDS_BY_PATH) - set(named) - {()}) == []


@pytest.mark.parametrize("path", COMMANDS_BY_PATH, ids=" ".join)
def test_every_command_and_option_says_what_it_does(path: tuple[str, ...]) -> None:
    command = COMMANDS_BY_PATH[path]
    shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    assert command.help
    assert [one.opts for one in shown if not one.help] == []


def test_every_reason_with_a_remedy_is_in_the_operations_page() -> None:
    page = (REPOSITORY / "docs/operations.md").read_text()
    assert [code for code, known in UNACCELERATED.items() if known.remedy and f"`{code}`" not in page] == []
