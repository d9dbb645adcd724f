"""`dwcp-migrate drain HOST`: migrate all domains off a host and let none be placed there.

Without HOST it is the old spelling of `cordon` (`--off`: of `uncordon`), which is about the local agent; it works for
one release more and says so.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.host import cordon, uncordon
from dwcp_migrate.cli.plans import attached
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.migration_options import migration_options, options_of
from dwcp_migrate.cli.support.options import PATH, agent_options, exact_option, json_option
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.placement.plan import Goal, Plan

if TYPE_CHECKING:
    from dwcp_migrate.orchestration.workspace import Workspace


@click.command()
@click.argument("host", required=False)
@click.option("--dry-run", is_flag=True, help="Show the plan, move nothing.")
@planning.at_once_option
@planning.here_option
@click.option("--fleet", "fleet_path", type=PATH, help="With --dry-run: a fleet as JSON.")
@click.option("--off", is_flag=True, hidden=True)
@click.option("--wait", is_flag=True, hidden=True)
@exact_option
@migration_options
@json_option
@agent_options
@click.pass_context
def command(  # noqa: PLR0913 - one parameter an option
    context: click.Context,
    /,
    *,
    host: str | None,
    dry_run: bool,
    at_once: int,
    here: bool,
    fleet_path: Path | None,
    exact_s: float | None,
    off: bool,
    wait: bool,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
    **words: Any,
) -> None:
    """Migrate all domains off HOST and let none be placed there, until `undrain HOST`.

    Exit code 0 says that HOST's libvirtd, asked at the end, has no running domain.
    """
    if host is None:
        if dry_run or fleet_path is not None or exact_s is not None or at_once:
            raise click.UsageError("--dry-run, --fleet, --exact and --at-once need a HOST")
        client = ApiClient(control_socket(config_path, socket_path))
        _old_spelling(client, words["timeout"], off=off, wait=wait, as_json=as_json)
        return
    if not host.strip():
        raise click.UsageError("HOST is empty: is a variable not set?")
    if off or wait:
        raise click.UsageError("--off and --wait are about the local agent: `undrain HOST`, or `cordon --wait`")
    from dwcp_migrate.orchestration.workspace import open_workspace

    options = options_of(words)
    with open_workspace(config_path, fleet_path, at_once, copies_storage=options.copies_storage) as ours:
        if dry_run:
            plan = _plan(ours, host, exact_s)
            click.echo(output.as_json(plan) if as_json else planning.plan_text(plan))
            context.exit(PlacementError.exit_code if plan.left else 0)
        context.exit(_empty(ours, host, exact_s, options, here=here, as_json=as_json))


def _old_spelling(client: ApiClient, timeout_s: float | None, *, off: bool, wait: bool, as_json: bool) -> None:
    """Do what `drain` without a host did in release 0.1.0."""
    now = "uncordon" if off else "cordon"
    click.echo(f"`drain` without a host is now `{now}`, and goes with the next release", err=True)
    if off:
        uncordon.uncordon(client, as_json=as_json)
    else:
        cordon.cordon(
            client, wait_s=(cordon.WAIT_S if timeout_s is None else timeout_s) if wait else None, as_json=as_json
        )


def _plan(ours: "Workspace", host: str, exact_s: float | None) -> Plan:
    from dwcp_migrate.placement.planner import plan_drain

    whole = ours.source.snapshot()
    if exact_s is None:
        return plan_drain(whole, host, ours.policy(), ours.cost)
    return ours.plan_exactly(whole, Goal(purpose="drain", host=host), exact_s)


def _empty(
    ours: "Workspace", host: str, exact_s: float | None, options: MigrationOptions, *, here: bool, as_json: bool
) -> int:
    """Empty a host; the exit code."""
    from dwcp_migrate.orchestration.fleet_source import with_state, write_settings

    goal = Goal(purpose="drain", host=host)
    if ours.unended(goal):
        return planning.carry_out(ours, None, options, as_json=as_json)
    kept = attached.open_plan(ours, goal)
    if kept is not None:
        return _said(host, attached.go_on(ours, kept, as_json=as_json), as_json=as_json)
    plan = _plan(ours, host, exact_s)
    if ours.hosts is not None:
        if ours.shared is not None:
            ours.shared.set_draining(host, draining=True)
        write_settings(ours.settings_path, with_state(ours.settings(), host, "maintenance"))
    code = attached.carry(ours, plan, options, here=here or exact_s is not None, as_json=as_json)
    return _said(host, code, as_json=as_json)


def _said(host: str, code: int, *, as_json: bool) -> int:
    if code == 0 and not as_json:
        click.echo(f"{host} is empty: its libvirtd has no running domain")
    return code
