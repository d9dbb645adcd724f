"""`dwcp-migrate cluster pbft`: the group that certifies migrations, and how its members are changed."""

from pathlib import Path
from typing import Final

import click
import msgspec

from dwcp_migrate.api import cluster as api
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.fleet.repairs import yes_option
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.errors import NotFoundError

CHOICE_HEADER: Final = ("When", "From", "To", "Engine", "Why")
EVENT_HEADER: Final = ("When", "Engine", "Now", "Why")
SEAT_HEADER: Final = ("Host", "Part", "Operator", "Key")
CHOICES_SHOWN: Final = 10


@click.group(invoke_without_command=True)
@click.option("--toml", "as_toml", is_flag=True, help="Print the verified members as [coordination.pbft] has them.")
@json_option
@agent_options
@click.pass_context
def command(
    context: click.Context, *, as_toml: bool, as_json: bool, config_path: Path | None, socket_path: Path | None
) -> None:
    """Show the PBFT group, and who decided lately and why."""
    if context.invoked_subcommand is not None:
        return
    found = ApiClient(control_socket(config_path, socket_path)).ask("pbft", api.PbftView)
    if as_toml:
        if not found.seats:
            raise NotFoundError(f"there are no members to print: {found.group.error or api.NO_GROUP}")
        click.echo(tables(found), nl=False)
    else:
        click.echo(output.as_json(found) if as_json else render(found))


@command.command()
@click.option("--add", metavar="NAME[=KEY]", multiple=True, help="Gets a vote; with a KEY, under that new key.")
@click.option("--client", metavar="NAME[=KEY]", multiple=True, help="May ask the group and has no vote (any more).")
@click.option("--remove", metavar="NAME", multiple=True, help="Leaves the group.")
@click.option("--operator", metavar="NAME", multiple=True, help="May change the members from now on.")
@click.option("--unseen", is_flag=True, help="Do so even if the agent of a host that gets a vote does not answer.")
@json_option
@agent_options
def propose(
    *, unseen: bool, as_json: bool, config_path: Path | None, socket_path: Path | None, **hosts: tuple[str, ...]
) -> None:
    """Change the members; run it on an operator's host.

    All that is named changes at once, in one new epoch, which is in force when this returns. Who is to get a vote runs
    its agent already, with the group of now in its configuration, and is in [[peers]] of every host: addresses come
    from there. KEY is what `dwcp-migrate cluster key` shows; of a host that the group knows it may be left out.
    """
    body = {
        "add": [_named(given) for given in hosts["add"]],
        "clients": [_named(given) for given in hosts["client"]],
        "remove": hosts["remove"],
        "operators": hosts["operator"],
        "unseen": unseen,
    }
    asked = ApiClient(control_socket(config_path, socket_path))
    done = asked.change("pbft/propose", api.Changed, msgspec.json.encode(body))
    click.echo(output.as_json(done) if as_json else done.message)


@command.command("assign")
@click.argument("uuid")
@click.argument("host", default="")
@yes_option
@json_option
@agent_options
def assign_owner(
    *, uuid: str, host: str, yes: bool, as_json: bool, config_path: Path | None, socket_path: Path | None
) -> None:
    """Let the domain UUID be HOST's for the group, or nobody's without one; run it on an operator's host.

    A certificate for it that is out counts no more. For a domain whose host is gone for good, or whose migrations the
    group refuses because it was never told where it went.
    """
    if not yes:
        where = f"nowhere but on {host}, or is its last host off (fenced)" if host else "nowhere"
        click.confirm(f"Does {uuid} run {where}?", abort=True, err=True)
    asked = ApiClient(control_socket(config_path, socket_path))
    done = asked.change("pbft/assign", api.Changed, uuid=uuid, owner=host)
    click.echo(output.as_json(done) if as_json else done.message)


def _named(given: str) -> dict[str, str]:
    name, _, key = given.partition("=")
    return {"name": name, "key": key.lower()}


def tables(found: api.PbftView) -> str:
    """Write the members of the newest epoch as the configuration has them."""
    lines = ["[coordination.pbft]", f'cluster = "{found.cluster}"', f"epoch = {found.group.epoch}"]
    for seat in found.seats:
        lines += ["", f"[[coordination.pbft.{'members' if seat.votes else 'clients'}]]"]
        lines += [f'name = "{seat.name}"', f'key = "{seat.key}"', *(["operator = true"] if seat.operator else [])]
    return "\n".join(lines) + "\n"


def render(found: api.PbftView) -> str:
    """Lay the group out as text, with the latest choices and changes."""
    parts = [output.format_block(summary(found))]
    if found.seats:
        seats = [
            (seat.name, "member" if seat.votes else "client", "yes" if seat.operator else "no", seat.key)
            for seat in found.seats
        ]
        parts.append(output.format_table(SEAT_HEADER, seats))
    if found.choices:
        rows = [
            (output.moment(one.at), one.source, one.destination, one.engine, one.reason)
            for one in found.choices[:CHOICES_SHOWN]
        ]
        parts.append(output.format_table(CHOICE_HEADER, rows))
    if found.events:
        changes = [
            (output.moment(event.at), event.engine, "decides again" if event.usable else "failed", event.reason)
            for event in found.events[:CHOICES_SHOWN]
        ]
        parts.append(output.format_table(EVENT_HEADER, changes))
    return "\n\n".join(parts)


def summary(found: api.PbftView) -> list[tuple[str, str]]:
    """Say where the group stands in a few lines."""
    group = found.group
    is_replica = group.role == "replica"
    time = f"{group.decision_ms_p50:.1f} ms half of them, {group.decision_ms_max:.1f} ms at most"
    return [
        ("Mode", found.mode),
        ("This host", group.role),
        ("Members", ", ".join(group.members)),
        ("Epoch", epoch(group) if group.members else ""),
        ("Connected", ", ".join(group.connected)),
        ("No peers here", ", ".join(group.unreachable)),
        ("Bears", f"{group.faulty_max} that fail or lie" if group.members else ""),
        ("View", f"{group.view}, primary {group.primary}, {group.view_changes} changes" if is_replica else ""),
        ("Sequence", str(group.sequence) if is_replica else ""),
        ("Batches", f"{group.batch_p50:g} requests half of them, {group.batch_max} at most" if is_replica else ""),
        ("Decisions", f"{group.decisions} for this host, {group.decisions_failed} not in time"),
        ("Decision", time if group.decision_ms_p50 >= 0 else ""),
        ("Error", group.error),
    ]


def epoch(group: api.GroupStatus) -> str:
    """Say which members count, and what the configuration has to do with it."""
    parts = [str(group.epoch)]
    if group.epoch != group.epoch_configured:
        parts.append(f"the configuration is of epoch {group.epoch_configured}")
    if 0 <= group.epoch_replica < group.epoch:
        parts.append(f"the replica here is still in {group.epoch_replica}")
    return "; ".join([*parts, *([group.note] if group.note else [])])
