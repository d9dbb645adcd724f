"""`dwcp-migrate check PEER`: tries a peer and says what a migration to it would get. Exit 1 when it would be plain."""

import time
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.peer_check import PeerCheck
from dwcp_migrate.cli.host.check import EXIT_FAILED, render_check
from dwcp_migrate.cli.migrations.peer_judgement import conclude, judge_peer
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.completion import complete_peers
from dwcp_migrate.cli.support.composed import PeerDiagnosis
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.units import MIB

ANSWER_S_MAX: Final = 60.0
"""Names, handshakes, the peer's hook, and a measurement of the longest."""


@click.command()
@click.argument("peer", shell_complete=complete_peers)
@click.option(
    "--seconds", type=click.FloatRange(0, 10), default=3.0, show_default=True, help="Longest time of the measurement."
)
@click.option(
    "--mebibytes", type=click.IntRange(0, 256), default=64, show_default=True, help="Largest amount to send, MiB."
)
@click.option("--channels", type=click.IntRange(1, 16), help="TCP channels  [default: the configuration's, else 8].")
@click.option("-q", "--quiet", is_flag=True, help="Show only checks that are not ok.")
@json_option
@agent_options
def command(  # noqa: PLR0913 - one parameter an option
    *,
    peer: str,
    seconds: float,
    mebibytes: int,
    channels: int | None,
    quiet: bool,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> int:
    """Try PEER, by name or address: what would a migration to it get, accelerated or not, and how fast.

    It looks at names, addresses, redirect, the link port on every address, clocks, versions, certificates and the
    peer's libvirt hook, and sends some megabytes. Beside running migrations it takes a twentieth of what they get.

    Exits 0 when a migration would be accelerated, 1 otherwise.
    """
    bounds = {"seconds": seconds, "bytes": mebibytes * MIB, "channels": channels or 0}
    client = ApiClient(control_socket(config_path, socket_path))
    found = client.ask(f"check?{urlencode({'peer': peer, **bounds})}", PeerCheck, ANSWER_S_MAX)
    checks = judge_peer(found, time.time())
    verdict = conclude(found, checks)
    if as_json:
        click.echo(output.as_json(PeerDiagnosis(verdict=verdict, checks=checks, facts=found)))
    else:
        for check in checks:
            if not quiet or check.verdict != "ok":
                click.echo(render_check(check))
        click.echo(f"\n{verdict.text}")
    return 0 if verdict.accelerated else EXIT_FAILED
