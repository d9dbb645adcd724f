"""`dwcp-migrate place`: the best host for a domain that is to be started."""

from pathlib import Path

import click
import msgspec

from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.fleet import MEMORY, VCPUS, Domain, Rule


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """One element of the list that `place --json` prints."""

    domain: str
    host: str


@click.command()
@click.argument("domains", metavar="DOMAIN...", nargs=-1, required=True)
@click.option("--vcpus", type=click.FloatRange(min=0), default=1.0, show_default=True, help="vCPUs of each new domain.")
@click.option(
    "--memory-mib", type=click.FloatRange(min=0), default=1024.0, show_default=True, help="Memory of each new domain."
)
@click.option("--apart", is_flag=True, help="Place the domains on different hosts.")
@planning.measure_option
@json_option
@planning.fleet_options
def command(  # noqa: PLR0913 - one parameter an option
    *,
    domains: tuple[str, ...],
    vcpus: float,
    memory_mib: float,
    apart: bool,
    measure_s: float,
    as_json: bool,
    config_path: Path | None,
    fleet_path: Path | None,
) -> None:
    """Say which host takes each DOMAIN best, all of them placed at once or none.

    A domain of the fleet file that has no host is taken as it stands there; any other name is a new domain.
    """
    from dwcp_migrate.orchestration.workspace import open_workspace
    from dwcp_migrate.placement.explain import explain_item
    from dwcp_migrate.placement.model import build_problem
    from dwcp_migrate.placement.online import Placer

    with open_workspace(config_path, fleet_path, measure_s=measure_s) as ours:
        whole = ours.fleet_for_placement()
        known = {one.name for one in whole.domains}
        new = [Domain(name=one, demand={VCPUS: vcpus, MEMORY: memory_mib}) for one in domains if one not in known]
        if running := [one.name for one in whole.domains if one.host and one.name in domains]:
            raise PlacementError(f"{running[0]} runs already", hint="dwcp-migrate migrate moves it")
        rules = [*whole.rules, Rule(name="--apart", kind="apart", domains=list(domains))] if apart else whole.rules
        problem = build_problem(msgspec.structs.replace(whole, domains=[*whole.domains, *new], rules=rules))
        items = {name: problem.item_of[problem.domain_index(name)] for name in domains}
        before = problem.state.copy()
        held = Placer(problem).place(domains)
        hosts = dict(zip(held.domains, held.hosts, strict=True))
        if as_json:
            click.echo(output.as_json([Placed(domain=name, host=hosts[name]) for name in domains]))
            return
        problem.restore(before)
        for name in domains:
            click.echo("\n".join(explain_item(problem, items[name], problem.host_index(hosts[name]))))
