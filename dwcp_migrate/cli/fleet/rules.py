"""`dwcp-migrate rules`: what placement must respect."""

from pathlib import Path

import click
import msgspec

from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.answers import CommandDone
from dwcp_migrate.cli.support.options import config_option, json_option
from dwcp_migrate.errors import NotFoundError, PlacementError
from dwcp_migrate.placement.fleet import LEVELS, Kind, Level, Rule

KINDS: tuple[Kind, ...] = ("together", "apart", "spread", "pin", "exclude")


@click.group()
def command() -> None:
    """List, add and remove placement rules."""


@command.command("list")
@json_option
@config_option
def list_rules(*, as_json: bool, config_path: Path | None) -> None:
    """List the rules."""
    from dwcp_migrate.orchestration.workspace import open_workspace

    with open_workspace(config_path, None) as ours:
        rules = ours.rules()
        if as_json:
            click.echo(output.as_json(rules))
            return
        rows = [
            (
                rule.name,
                rule.kind + (f" {rule.limit}" if rule.limit > 1 else ""),
                rule.level,
                "hard" if rule.hard else f"soft {rule.weight:g}",
                " ".join(rule.domains),
                " ".join(rule.zones) or output.UNKNOWN,
            )
            for rule in rules
        ]
        click.echo(output.format_table(("Name", "Kind", "Level", "Strength", "Domains", "Zones"), rows))


@command.command()
@click.argument("name")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("domains", metavar="DOMAIN...", nargs=-1, required=True)
@click.option(
    "--level", type=click.Choice(LEVELS), default="host", show_default=True, help="Kind of zone that the rule is about."
)
@click.option("--zone", "zones", multiple=True, help="With pin and exclude: a host, rack, datacentre or region.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With apart: largest number of domains in a zone.",
)
@click.option(
    "--soft",
    type=click.FloatRange(0, min_open=True),
    help="Make it a preference with this weight instead of a hard rule.",
)
@json_option
@config_option
def add(  # noqa: PLR0913 - one parameter an option
    *,
    name: str,
    kind: Kind,
    domains: tuple[str, ...],
    level: Level,
    zones: tuple[str, ...],
    limit: int,
    soft: float | None,
    as_json: bool,
    config_path: Path | None,
) -> None:
    """Add the rule NAME of a KIND for DOMAINs."""
    if (kind in {"pin", "exclude"}) != bool(zones):
        raise PlacementError(f"{kind} {'needs' if not zones else 'has no'} --zone")
    rule = Rule(
        name=name,
        kind=kind,
        domains=list(domains),
        level=level,
        zones=list(zones),
        limit=limit,
        hard=soft is None,
        weight=soft or 1.0,
    )
    from dwcp_migrate.orchestration.fleet_source import write_settings
    from dwcp_migrate.orchestration.workspace import open_workspace

    with open_workspace(config_path, None) as ours:
        rules = ours.rules()
        if any(one.name == name for one in rules):
            raise PlacementError(f"there is a rule {name} already", hint="`rules remove` takes it away")
        if ours.shared is not None:
            ours.shared.put_rule(rule)
        else:
            write_settings(ours.settings_path, msgspec.structs.replace(ours.settings(), rules=[*rules, rule]))
        words = f"{name} added; `rebalance` shows what it changes"
        click.echo(output.as_json(CommandDone(message=words)) if as_json else words)


@command.command()
@click.argument("name")
@json_option
@config_option
def remove(*, name: str, as_json: bool, config_path: Path | None) -> None:
    """Remove the rule NAME."""
    from dwcp_migrate.orchestration.fleet_source import write_settings
    from dwcp_migrate.orchestration.workspace import open_workspace

    with open_workspace(config_path, None) as ours:
        rules = ours.rules()
        kept = [one for one in rules if one.name != name]
        if len(kept) == len(rules):
            raise NotFoundError(f"there is no rule {name}", hint="`rules list` shows them")
        if ours.shared is not None:
            ours.shared.drop_rule(name)
        else:
            write_settings(ours.settings_path, msgspec.structs.replace(ours.settings(), rules=kept))
        words = f"{name} removed"
        click.echo(output.as_json(CommandDone(message=words)) if as_json else words)
