"""Page of the command line: every command with its usage, help, options and examples, as the code describes them.

    .venv/bin/python packaging/cli_page.py > docs/cli.md

A test holds the page to the code.
"""

import re
from collections.abc import Iterator

import click

from dwcp_migrate.cli import SECTIONS, root

NAME = "dwcp-migrate"
HEAD = """# Command line

Generated from the code by `packaging/cli_page.py`; a test holds the two together. `help` before a command,
`--help` after it and its man page say the same. Exit codes: [operations.md](operations.md#exit-codes); what `--json`
prints: [json.md](json.md).
"""
SHARED = {"--help", "--json", "--config", "--socket"}
"""Options that many commands have alike are told once."""

SHARED_TABLE = """Options that most commands share are listed here and not again below:

| option | |
|---|---|
| `--json` | Print JSON instead of text. |
| `--config PATH` | The agent's configuration file, `/etc/dwcp-migrate/agent.toml` by default. |
| `--socket PATH` | Control socket of the agent; by default the configuration's. |
| `-h`, `--help` | Show the command's help. |
"""


def commands(group: click.Group, context: click.Context, path: str) -> Iterator[tuple[str, click.Command]]:
    """Find a group's commands and those below them, each with its words."""
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if found is None or found.hidden:
            continue
        words = f"{path} {name}"
        yield words, found
        if isinstance(found, click.Group):
            yield from commands(found, click.Context(found, info_name=words), words)


def paragraphs(text: str) -> str:
    """Write click's help as Markdown: a paragraph that click leaves as it is becomes a block."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip()):
        kept = part.startswith("\b")
        lines = [line.strip() for line in part.lstrip("\b\n").splitlines()]
        if kept and lines[0] == "Examples:":
            parts.append("```\n" + "\n".join(lines[1:]) + "\n```")
        elif kept:
            parts.append("```\n" + "\n".join(lines) + "\n```")
        else:
            parts.append(" ".join(lines))
    return "\n\n".join(parts)


def options(command: click.Command, context: click.Context) -> list[str]:
    """Write the rows of a command's own options."""
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or not isinstance(parameter, click.Option) or not SHARED.isdisjoint(parameter.opts):
            continue
        names, words = record
        cell = " ".join(words.split()).replace("|", "\\|")
        rows.append(f"| `{names}` | {cell} |".replace(" / ", "`, `"))
    return rows


def entry(words: str, command: click.Command) -> str:
    """Write the section of one command."""
    context = click.Context(command, info_name=words)
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    parts = [f"### {words}", paragraphs(command.help or ""), f"```\n{usage}\n```"]
    rows = options(command, context)
    if rows:
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    if command.epilog:
        parts.append(paragraphs(command.epilog))
    return "\n\n".join(parts)


def page() -> str:
    """Write the whole page."""
    found = list(commands(root, click.Context(root, info_name=NAME), NAME))
    parts = [HEAD.strip(), SHARED_TABLE.strip()]
    for section, table in SECTIONS.items():
        parts.append(f"## {section}")
        for name in table:
            one = f"{NAME} {name}"
            parts += [entry(words, command) for words, command in found if words == one or words.startswith(f"{one} ")]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
