"""`dwcp-migrate limit`: holds the migrations to a peer to a rate, until it is taken off."""

from pathlib import Path
from typing import Final

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.limits import LinkLimit, LinkLimits
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.completion import complete_peers
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.config.quantities import EXAMPLES as QUANTITIES
from dwcp_migrate.config.quantities import number_of
from dwcp_migrate.units import format_rate

OFF: Final = "off"
HEADER: Final = ("Peer", "In force", "Commanded", "Until", "Configured")


class Rate(click.ParamType[float]):
    """A rate as the configuration has it (`200Mbit/s`), or `off`."""

    name = "RATE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType.convert`: bytes a second, 0 for `off`."""
        if isinstance(value, float):
            return value
        if value == OFF:
            return 0.0
        found = number_of(str(value), "rate")
        if not found:
            self.fail(f'{value!r} is no rate: as "200Mbit/s" or "25MB/s", or {OFF}', param, ctx)
        return float(found)


class Period(click.ParamType[float]):
    """A time as the configuration has it (`90s`, `2h`, `7d`)."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType.convert`: seconds."""
        if isinstance(value, float):
            return value
        found = number_of(str(value), "seconds")
        if not found:
            self.fail(f"{value!r} is no time: {QUANTITIES['seconds']}, 8h or 7d", param, ctx)
        return float(found)


@click.command()
@click.argument("peer", required=False, shell_complete=complete_peers)
@click.argument("rate", required=False, type=Rate(), metavar="[RATE]")
@click.option("--for", "for_s", type=Period(), default=0.0, help="End it by itself after so long: 8h, 30min.")
@json_option
@agent_options
def command(
    *,
    peer: str | None,
    rate: float | None,
    for_s: float,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> None:
    """Hold all migrations to PEER, together, to RATE on the wire; without arguments, list the limits.

    It holds at once, also for migrations under way, and outlives restarts of the agent and the host, until
    `limit PEER off` or the end of --for. What the configuration says (`bandwidth.link_bytes_per_s_max`, and
    `link_bytes_per_s_max` of the peer) still counts: the lowest holds.
    """
    client = ApiClient(control_socket(config_path, socket_path))
    if peer is None:
        limits = client.ask("limits", LinkLimits).limits
        click.echo(output.as_json(limits) if as_json else output.format_table(HEADER, map(limit_row, limits)))
        return
    if rate is None:
        raise click.UsageError("give a rate, as 200Mbit/s, or off")
    found = client.change("limit", LinkLimit, peer=peer, bytes_per_s=str(rate), for_s=str(for_s))
    click.echo(output.as_json([found]) if as_json else sentence(found))


def limit_row(one: LinkLimit) -> tuple[str, ...]:
    """Lay out one peer's limits."""
    until = output.moment(one.until) if one.until else "it is taken off" if one.commanded_bytes_per_s else ""
    return (
        one.peer,
        _rate(one.bytes_per_s),
        _rate(one.commanded_bytes_per_s),
        until,
        _rate(one.configured_bytes_per_s),
    )


def _rate(bytes_per_s: float) -> str:
    return format_rate(bytes_per_s) if bytes_per_s else output.UNKNOWN


def sentence(one: LinkLimit) -> str:
    """Say what holds now."""
    if not one.bytes_per_s:
        return f"{one.peer}: no limit"
    held = f"{one.peer}: held to {format_rate(one.bytes_per_s)}"
    if not one.commanded_bytes_per_s:
        return f"{held}, as configured"
    if one.bytes_per_s < one.commanded_bytes_per_s:
        return f"{held}: the configuration has the lower limit"
    return f"{held} until {output.moment(one.until) if one.until else f'`dwcp-migrate limit {one.peer} off`'}"
