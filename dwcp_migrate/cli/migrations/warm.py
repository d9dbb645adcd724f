"""`dwcp-migrate warm`: brings a guest's pages to a peer's page store while it runs, ahead of its migration."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.warm import WARM_S_MAX, WarmUp, WarmUpList
from dwcp_migrate.cli.migrations.limit import Period, Rate
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.errors import NotFoundError, SessionError
from dwcp_migrate.units import format_bytes, format_rate

LOOK_S: Final = 1.0
"""Between two looks at it."""


@click.command()
@click.argument("domain")
@click.option("--to", "peer", required=True, metavar="HOST", help="Peer whose page store gets the pages.")
@click.option("--rate", type=Rate(), default=0.0, help="Most on the wire: 200Mbit/s, 25MB/s.")
@click.option("--for", "for_s", type=Period(), default=0.0, help="Repeat it for so long: 2h, 30min; at most 24h.")
@json_option
@agent_options
def command(  # noqa: PLR0913 - one for each option
    *,
    domain: str,
    peer: str,
    rate: float,
    for_s: float,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> None:
    """Bring the pages of DOMAIN, which runs here, to the page store of HOST, so that its migration names them.

    One pass over the guest's memory; with --for, passes until the time is over, each of which sends what changed.
    Both hosts need a page store ([store] in the configuration). It waits while any migration runs on either host.
    Ctrl-C ends it; what was brought stays there. It is no migration, and is in no history.
    """
    if for_s > WARM_S_MAX:
        raise click.BadParameter(f"at most {WARM_S_MAX / 3600:.0f}h", param_hint="--for")
    client = ApiClient(control_socket(config_path, socket_path))
    one = client.change("warm", WarmUp, domain=domain, peer=peer, bytes_per_s=str(rate), for_s=str(for_s))
    try:
        one = follow(client, one, quiet=as_json)
    except KeyboardInterrupt:
        client.change("warm/end", WarmUp, id=one.id)
        one = follow(client, one, quiet=True)
    if one.state == "failed":
        raise SessionError(f"{one.domain}: {one.error}", hint=one.hint)
    click.echo(output.as_json(one) if as_json else result(one))


def follow(client: ApiClient, one: WarmUp, *, quiet: bool, is_enough: Callable[[WarmUp], bool] | None = None) -> WarmUp:
    """Show a warm-up until it is over, and return it.

    Args:
        client: of the agent.
        one: as it began.
        quiet: show nothing.
        is_enough: judges it at each look, and it is followed no longer once it is; None follows it to its end.
    """
    told = ""
    while not one.is_over and not (is_enough is not None and is_enough(one)):
        before = one
        time.sleep(LOOK_S)
        one = find(client, one.id)
        line = progress(before, one, LOOK_S)
        if not quiet and line != told and not one.is_over:
            told = line
            click.echo(line, err=True)
    return one


def find(client: ApiClient, identity: str) -> WarmUp:
    """Find a warm-up that this command began.

    Args:
        client: of the agent.
        identity: of it.

    Raises:
        NotFoundError: the agent was started again, and knows it no more.
    """
    for one in client.ask("warm", WarmUpList).warm_ups:
        if one.id == identity:
            return one
    raise NotFoundError("the agent knows the warm-up no more", hint="it ended with the agent; begin it again")


def progress(before: WarmUp, one: WarmUp, seconds: float) -> str:
    """Say in a line how far it is.

    Args:
        before: as it was.
        one: as it is.
        seconds: between both.
    """
    if one.state == "waiting":
        return f"{one.domain}: waits: {one.detail}"
    rate = (one.wire_bytes - before.wire_bytes) / seconds
    memory = f" of a guest of {format_bytes(one.readable_bytes)}" if one.readable_bytes else ""
    return f"{one.domain}: pass {one.passes + 1}, {one.pages} pages{memory}, {format_rate(rate)}"


def result(one: WarmUp) -> str:
    """Say what it brought."""
    pages = output.counted(one.pages, "page", "pages")
    passes = output.counted(one.passes, "pass", "passes")
    early = f"; {one.detail}" if one.detail else ""
    return (
        f"{one.domain}: {pages} carried to {one.peer} in {passes}, {one.known_pages} of them were there already,"
        f" {format_bytes(one.wire_bytes)} sent{early}"
    )
