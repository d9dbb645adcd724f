"""`dwcp-migrate schema`: what commands print under --json, and the control API, for programs that use them."""

import click

DEVELOPMENT = ("lab", "demo", "train", "replay")
"""Commands of a checkout, whose output is no contract."""


@click.command()
@click.option("--api", is_flag=True, help="The control API instead, as OpenAPI.")
def command(*, api: bool) -> None:
    """Print a JSON Schema of what each command prints under --json, or the OpenAPI description of the control API."""
    import msgspec

    if api:
        from dwcp_migrate.agent.http.routes import describe_openapi

        found = describe_openapi()
    else:
        from dwcp_migrate.cli.support.contract import commands_schema

        found = commands_schema(commands_with_json())
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


def commands_with_json() -> list[str]:
    """Name all commands that take --json and whose output is a contract, by their words."""
    from dwcp_migrate.cli import root

    return [words for words, one in leaves(root, "") if any("--json" in option.opts for option in one.params)]


def leaves(group: click.Group, before: str) -> list[tuple[str, click.Command]]:
    """Find all commands of a group that do something.

    Args:
        group: whose commands.
        before: words of the group itself.

    Returns:
        Each with its words.
    """
    found: list[tuple[str, click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        words = f"{before} {name}".strip()
        if one is None or words in DEVELOPMENT:
            continue
        if isinstance(one, click.Group):
            found += leaves(one, words)
        if not isinstance(one, click.Group) or one.invoke_without_command:
            found.append((words, one))
    return found
