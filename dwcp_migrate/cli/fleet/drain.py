"""`dwcp-migrate drain HOST`: migrate all domains off a host and let none be placed there.

Without HOST it is the old spelling of `cordon` (`--off`: of `uncordon`), which is about the local agent; it works for
one release more and says so.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.plans import PlanRecord
from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.host import cordon, uncordon
from dwcp_migrate.cli.plans import attached
from dwcp_migrate.cli.plans.warm_first import BeginTime, WarmWords, order_of, take_warm_words, warm_options
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.migration_options import migration_options, options_of
from dwcp_migrate.cli.support.options import PATH, agent_options, exact_option, json_option
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.orchestration.plan_store import AgentPlans
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
@click.option("--at", type=BeginTime(), help="Begin then, as 22:00 or 2026-11-30T22:00; guests are warmed up before.")
@warm_options
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
    at: float | None,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
    **words: Any,
) -> None:
    """Migrate all domains off HOST and let none be placed there, until `undrain HOST`.

    With --warm each guest's pages are brought to its destination's page store first, and the moves begin once no guest
    gains by waiting; with --at they begin at that time. What is refused, as without a store, keeps nothing back.
    Exit code 0 says that HOST's libvirtd, asked at the end, has no running domain.
    """
    warm = take_warm_words(words, at=at)
    if host is None:
        if dry_run or fleet_path is not None or exact_s is not None or at_once or warm.warm:
            raise click.UsageError("--dry-run, --fleet, --exact, --at-once, --warm and --at need a HOST")
        client = ApiClient(control_socket(config_path, socket_path))
        _old_spelling(client, words["timeout"], off=off, wait=wait, as_json=as_json)
        return
    if not host.strip():
        raise click.UsageError("HOST is empty: is a variable not set?")
    if off or wait:
        raise click.UsageError("--off and --wait are about the local agent: `undrain HOST`, or `cordon --wait`")
    if warm.warm and (here or exact_s is not None):
        raise click.UsageError("--warm and --at are for the agents to do: not with --here or --exact")
    from dwcp_migrate.orchestration.workspace import open_workspace

    options = options_of(words)
    with open_workspace(config_path, fleet_path, at_once, copies_storage=options.copies_storage) as ours:
        if dry_run:
            plan = _plan(ours, host, exact_s)
            click.echo(output.as_json(plan) if as_json else planning.plan_text(plan))
            context.exit(PlacementError.exit_code if plan.left else 0)
        emptying = Emptying(host, exact_s, options, warm, at, here=here, as_json=as_json)
        context.exit(_empty(ours, emptying))


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


@dataclass(frozen=True, slots=True)
class Emptying:
    """A host that is to be emptied, and how.

    Attributes:
        host: its name.
        exact_s: for the exact solver; None searches.
        options: of the migrations.
        warm: warm-ups ahead of them.
        at: when they begin; None: at once, or after the warm-ups.
        here: in this terminal.
        as_json: print JSON instead of text.
    """

    host: str
    exact_s: float | None
    options: MigrationOptions
    warm: WarmWords
    at: float | None
    here: bool = field(kw_only=True)
    as_json: bool = field(kw_only=True)


def _empty(ours: "Workspace", asked: Emptying) -> int:
    """Empty a host; the exit code."""
    from dwcp_migrate.orchestration.fleet_source import with_state, write_settings

    host, as_json = asked.host, asked.as_json
    goal = Goal(purpose="drain", host=host)
    if ours.unended(goal):
        if asked.at is not None:
            raise PlacementError(
                f"a plan to drain {host} has begun in a terminal",
                hint="give the command without --at to go on with it, or `dwcp-migrate rebalance --abandon`",
            )
        return planning.carry_out(ours, None, asked.options, as_json=as_json)
    kept = attached.open_plan(ours, goal)
    if kept is not None:
        _check_time(kept.record, asked.at)
        return _said(host, attached.go_on(ours, kept, as_json=as_json), as_json=as_json)
    if asked.at is not None and ours.client is not None:
        AgentPlans(ours.client).all()  # raises where no agent keeps plans: then nothing is to be changed
    plan = _plan(ours, host, asked.exact_s)
    if ours.hosts is not None:
        if ours.shared is not None:
            ours.shared.set_draining(host, draining=True)
        write_settings(ours.settings_path, with_state(ours.settings(), host, "maintenance"))
    order = order_of(asked.warm, plan, asked.at, wall_clock())
    if order is not None and not as_json:
        click.echo(planning.plan_text(plan))
    here = asked.here or asked.exact_s is not None
    code = attached.carry(ours, plan, asked.options, here=here, as_json=as_json, warm_first=order)
    return _said(host, code, as_json=as_json)


def _check_time(kept: PlanRecord, at: float | None) -> None:
    """Check that a plan that is kept already begins when it is to. Raises PlacementError."""
    order = kept.request.warm_first
    known = order.begins_at if order is not None and order.waits else None
    if at is not None and at != known:
        raise PlacementError(
            f"plan {kept.id} is to drain {kept.request.goal.host} already, and not at that time",
            hint=f"`dwcp-migrate plan show {kept.id}`; `dwcp-migrate plan abort {kept.id}` ends it",
        )


def _said(host: str, code: int, *, as_json: bool) -> int:
    if code == 0 and not as_json:
        click.echo(f"{host} is empty: its libvirtd has no running domain")
    return code
