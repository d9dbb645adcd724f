"""`dwcp-migrate predict`: what a migration will take, before it is started."""

from pathlib import Path

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.completion import complete_peers
from dwcp_migrate.cli.support.options import agent_options, deadline_option, json_option
from dwcp_migrate.units import format_bytes, format_rate

WAYS = {
    "precopy": "precopy: virsh migrate --live",
    "postcopy": "postcopy: virsh migrate --live --postcopy --postcopy-after-precopy",
    "warm-first": "copy beforehand, then precopy",
    "not-now": "not now",
}
"""Recommendations, and the options that carry them out."""


@click.command()
@click.argument("domain")
@click.option(
    "--to",
    "peer",
    required=True,
    shell_complete=complete_peers,
    help="The destination, as `dwcp-migrate status` names it.",
)
@deadline_option
@json_option
@agent_options
def command(
    *, domain: str, peer: str, deadline_s: float, as_json: bool, config_path: Path | None, socket_path: Path | None
) -> None:
    """Predict time, downtime and bytes of migrating DOMAIN, and advise.

    The interval holds the outcome in eight cases of ten. The domain's dirty rate is measured first, about a second.
    """
    answer = ApiClient(control_socket(config_path, socket_path)).predict(domain, peer, deadline_s)
    click.echo(output.as_json(answer) if as_json else output.format_block(lines(answer)))


def lines(answer: schema.Predicted) -> list[tuple[str, str]]:
    """Lay a prediction out."""
    expected = answer.expected
    link = interval(answer.link_bytes_per_s, format_rate)
    return [
        ("Domain", f"{answer.domain}, {format_bytes(answer.memory_bytes)}"),
        ("To", f"{answer.peer}, {output.milliseconds(round(answer.rtt_s * 1000)) if answer.rtt_s else 'no answer'}"),
        ("Link", link if answer.link_known else f"not measured yet; {link}"),
        ("Dirty rate", interval(answer.dirty_bytes_per_s, format_rate)),
        ("Time", interval(expected.time_s, output.duration)),
        ("Downtime", interval(expected.downtime_s, lambda value: output.milliseconds(round(value * 1000)))),
        ("On the wire", interval(expected.wire_bytes, format_bytes)),
        ("Converges", output.percent(expected.convergence)),
        ("Advice", WAYS.get(expected.way, expected.way)),
        ("Because", answer.reason),
    ]


def interval(quantiles: tuple[float, float, float], say: "output.Say") -> str:
    """Write a median and the range of eight cases of ten: `42 s (38 s to 51 s)`.

    Args:
        quantiles: 0.1, 0.5 and 0.9.
        say: writes one value with its unit.
    """
    low, median, high = (say(value) for value in quantiles)
    return median if low == high else f"{median} ({low} to {high})"
