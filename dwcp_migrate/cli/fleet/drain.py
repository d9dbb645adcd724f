"""`dwcp-migrate drain`: without a host, let the local agent take no new migration; with one, empty that host.

Two steps before work on a host, one word: `drain` is about the agent (an upgrade; migrations run on, unaccelerated),
`drain HOST` about the host (maintenance; its domains leave, and none comes).
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
import msgspec

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, exact_option, json_option
from dwcp_migrate.errors import DwcpError, PlacementError

if TYPE_CHECKING:
    from dwcp_migrate.orchestration.fleet_source import FleetSettings

POLL_S: Final = 0.5


@click.command()
@click.argument("host", default="")
@click.option("--dry-run", is_flag=True, help="With HOST: show the plan, move nothing.")
@click.option(
    "--fleet", "fleet_path", type=click.Path(path_type=Path), help="With HOST and --dry-run: a fleet as JSON."
)
@click.option("--off", is_flag=True, help="Let migrations in again.")
@click.option("--wait", is_flag=True, help="Wait until no accelerated migration runs.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), default=3600, show_default=True, help="Seconds.")
@exact_option
@json_option
@agent_options
@click.pass_context
def command(  # noqa: PLR0913 - one parameter an option
    context: click.Context,
    *,
    host: str,
    dry_run: bool,
    fleet_path: Path | None,
    exact_s: float | None,
    off: bool,
    wait: bool,
    timeout_s: float,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> None:
    """Let new migrations run unaccelerated, until --off or a restart; those under way go on.

    With HOST: migrate all domains off HOST and let none be placed there, until `undrain HOST`.
    """
    if host:
        if off or wait:
            raise click.UsageError("--off and --wait are about the local agent: leave HOST out, or say `undrain HOST`")
        context.exit(_empty(host, config_path, fleet_path, exact_s, dry_run=dry_run, as_json=as_json))
    if dry_run or fleet_path is not None or exact_s is not None:
        raise click.UsageError("--dry-run, --fleet and --exact need a HOST")
    client = ApiClient(control_socket(config_path, socket_path))
    done = client.post("undrain" if off else "drain")
    if wait and not off:
        drained(client, timeout_s)
    click.echo(output.as_json(done) if as_json else done.message or done.state)


def _empty(
    host: str,
    config_path: Path | None,
    fleet_path: Path | None,
    exact_s: float | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Empty a host; the exit code."""
    from dwcp_migrate.cli.fleet import planning
    from dwcp_migrate.orchestration.fleet_source import write_settings
    from dwcp_migrate.placement.plan import Goal
    from dwcp_migrate.placement.planner import plan_drain

    goal = Goal(purpose="drain", host=host)
    with planning.desk(config_path, fleet_path) as ours:
        if not dry_run and planning.unended(ours, goal):
            return planning.carry_out(ours, None, goal, as_json=as_json)
        whole = ours.source.snapshot()
        if exact_s is None:
            plan = plan_drain(whole, host, ours.policy(), ours.cost)
        else:
            plan = ours.plan_exactly(whole, goal, exact_s)
        if dry_run:
            click.echo(output.as_json(plan) if as_json else planning.plan_text(plan))
            return PlacementError.exit_code if plan.left else 0
        if ours.hosts is not None:
            if ours.shared is not None:
                ours.shared.set_draining(host, draining=True)
            write_settings(ours.settings_path, with_state(ours.settings(), host, "maintenance"))
        return planning.carry_out(ours, plan, goal, as_json=as_json)


def with_state(settings: "FleetSettings", host: str, state: Literal["up", "maintenance"]) -> "FleetSettings":
    """The settings with a host in another state."""
    from dwcp_migrate.orchestration.fleet_source import HostSettings

    own = msgspec.structs.replace(settings.hosts.get(host, HostSettings()), state=state)
    return msgspec.structs.replace(settings, hosts={**settings.hosts, host: own})


def drained(client: ApiClient, timeout_s: float) -> None:
    """Wait until no migration runs.

    Raises:
        DwcpError: some still run after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while running := client.migrations().migrations:
        if time.monotonic() >= deadline:
            names = ", ".join(output.domain(one) for one in running)
            raise DwcpError(f"still under way after {timeout_s:.0f} s: {names}", hint="wait longer: --timeout SECONDS")
        time.sleep(POLL_S)
