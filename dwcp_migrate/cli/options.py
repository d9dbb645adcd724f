"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorated = Callable[..., Any]


def json_option(command: Decorated) -> Decorated:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def agent_options(command: Decorated) -> Decorated:
    """Add `--config FILE` and `--socket PATH`: which agent to ask."""
    command = click.option(
        "--socket",
        "socket_path",
        type=click.Path(path_type=Path),
        envvar="DWCP_MIGRATE_SOCKET",
        help="Control socket of the agent.",
    )(command)
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar="DWCP_MIGRATE_CONFIG",
        help="The agent's configuration file  [default: /etc/dwcp-migrate/agent.toml].",
    )(command)
