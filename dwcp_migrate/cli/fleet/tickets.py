"""`dwcp-migrate tickets`: which migrations the fleet has agreed to, and what became of them."""

from pathlib import Path

import click

from dwcp_migrate.api import cluster as api
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.fleet.repairs import fail
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option

HEADER = ("Ticket", "Domain", "From", "To", "Generation", "State", "Granted", "Reason")
SPARE = ("Generation", "Granted")

STALE = "The fleet cannot be asked; this is what this host knows."


@click.group(invoke_without_command=True)
@click.option("--all", "with_ended", is_flag=True, help="List those that ended too, newest first.")
@json_option
@agent_options
@click.pass_context
def command(
    context: click.Context,
    /,
    *,
    with_ended: bool,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> None:
    """List the tickets that are open, or end one."""
    if context.invoked_subcommand is not None:
        return
    found = ApiClient(control_socket(config_path, socket_path)).ask("tickets", api.TicketList)
    shown = [one for one in found.tickets if with_ended or one.state in ("granted", "running", "conflict")]
    found = api.TicketList(is_fresh=found.is_fresh, tickets=shown)
    click.echo(output.as_json(found) if as_json else render(found))


command.add_command(fail)


def render(found: api.TicketList) -> str:
    """Lay the tickets out as text."""
    rows = [
        (
            str(ticket.token),
            ticket.uuid,
            ticket.source,
            ticket.destination,
            str(ticket.generation),
            ticket.state,
            output.moment(ticket.granted_at),
            ticket.reason,
        )
        for ticket in found.tickets
    ]
    text = output.fitted(HEADER, rows, SPARE) if rows else " No ticket is open."
    return text if found.is_fresh else f"{text}\n\n{STALE}"
