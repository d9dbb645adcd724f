"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

Decorated = Callable[..., Any]

PATH: Final = click.Path(path_type=Path, readable=False)
"""A path that the command itself opens: its own error says more than click's, and has its exit code."""

EXACT_S_MAX: Final = 3600.0
"""For an exact plan; a fleet that stands still for longer needs none."""


def json_option(command: Decorated) -> Decorated:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def config_option(command: Decorated) -> Decorated:
    """Add `--config FILE`."""
    return click.option(
        "--config",
        "config_path",
        type=PATH,
        envvar="DWCP_MIGRATE_CONFIG",
        help="The agent's configuration file  [default: /etc/dwcp-migrate/agent.toml].",
    )(command)


def agent_options(command: Decorated) -> Decorated:
    """Add `--config FILE` and `--socket PATH`: which agent to ask."""
    command = click.option(
        "--socket",
        "socket_path",
        type=PATH,
        envvar="DWCP_MIGRATE_SOCKET",
        help="Control socket of the agent.",
    )(command)
    return config_option(command)


def deadline_option(command: Decorated) -> Decorated:
    """Add `--deadline SECONDS`."""
    return click.option(
        "--deadline",
        "deadline_s",
        default=0.0,
        type=click.FloatRange(0),
        help="Seconds from now until it should be over; 0: no deadline.",
    )(command)


def exact_option(command: Decorated) -> Decorated:
    """Add `--exact SECONDS`: a solver's plan instead of a search's."""
    return click.option(
        "--exact",
        "exact_s",
        type=click.FloatRange(min=0, min_open=True, max=EXACT_S_MAX),
        metavar="SECONDS",
        help="Let an exact solver plan, for so long at most, and say how far from the best it is (extra `referee`).",
    )(command)
