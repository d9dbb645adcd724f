"""Completion of names in a shell: what the local agent knows, or nothing where it does not answer at once."""

from collections.abc import Callable, Iterable
from typing import Final

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.limits import LinkLimits
from dwcp_migrate.errors import DwcpError

ANSWER_S_MAX: Final = 1.0
"""Longest wait for the agent: a shell stands still meanwhile."""


def complete_peers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a peer.

    Args:
        ctx: of the command line so far: which agent.
        _param: not used; click passes it.
        incomplete: how the word begins.
    """
    return _names(ctx, incomplete, _peers)


def complete_migrations(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the domain or the id of a migration that runs or ended lately.

    Args:
        ctx: of the command line so far: which agent.
        _param: not used; click passes it.
        incomplete: how the word begins.
    """
    return _names(ctx, incomplete, _migrations)


def _names(ctx: click.Context, incomplete: str, ask: Callable[[ApiClient], Iterable[str]]) -> list[str]:
    try:
        client = ApiClient(control_socket(ctx.params.get("config_path"), ctx.params.get("socket_path")))
        return sorted({name for name in ask(client) if name.startswith(incomplete)})
    except DwcpError:
        return []


def _peers(client: ApiClient) -> Iterable[str]:
    return [one.peer for one in client.ask("limits", LinkLimits, ANSWER_S_MAX).limits]


def _migrations(client: ApiClient) -> Iterable[str]:
    found = [
        *client.ask("migrations", schema.Migrations, ANSWER_S_MAX).migrations,
        *client.ask(f"history?limit={schema.HISTORY_LIMIT_DEFAULT}", schema.Migrations, ANSWER_S_MAX).migrations,
    ]
    return [name for one in found for name in (one.domain, one.id[:8]) if name]
