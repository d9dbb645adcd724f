"""`dwcp-migrate lookout`: one look of the service that relieves the fleet; an agent starts it, not people."""

from pathlib import Path

import click

from dwcp_migrate.cli.support.options import config_option
from dwcp_migrate.orchestration.plan_store import AgentPlans
from dwcp_migrate.orchestration.watch_round import AgentWatch, FleetLook
from dwcp_migrate.orchestration.workspace import open_workspace, own_name


@click.command(hidden=True)
@config_option
def command(*, config_path: Path | None) -> None:
    """Look at the fleet once."""
    with open_workspace(config_path, None) as ours:
        assert ours.client is not None
        own = own_name(ours.config, ours.client)
        FleetLook(ours, AgentWatch(ours.client), AgentPlans(ours.client), own).look()
