"""Warm-ups of `migrate --warm`: the guests' pages brought to the destination's store, then the migration.

The rule: a warm-up that is refused, or fails, is said in words, and the migration goes on without it.
"""

import time
from typing import TYPE_CHECKING, Final

import click

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.api.plans import WarmMove
from dwcp_migrate.api.warm import WarmGrowth, WarmUp
from dwcp_migrate.cli.migrations import warm
from dwcp_migrate.cli.plans.warm_first import WarmWords, moves_of
from dwcp_migrate.errors import DwcpError, SessionError, UnfinishedError
from dwcp_migrate.placement.plan import Plan

if TYPE_CHECKING:
    from dwcp_migrate.orchestration.workspace import Workspace

GUEST_S_MIN: Final = 1.0
"""Time that is left for a guest's warm-up below which none is begun."""


def warm_ahead(ours: "Workspace", plan: Plan, words: WarmWords, *, quiet: bool) -> None:
    """Warm up the guests of a plan one after the other, each until its migration gains no more by waiting.

    Args:
        ours: the fleet's workspace.
        plan: whose steps name guests and destinations.
        words: for how long at most, and at which rate.
        quiet: say nothing of how far it is; what is refused is said in any case.

    Raises:
        Exit: it was interrupted; nothing was moved.
    """
    if ours.client is None:
        return
    from dwcp_migrate.orchestration.workspace import own_name

    own, until = own_name(ours.config, ours.client), time.monotonic() + words.for_s
    for move in moves_of(plan):
        try:
            one = _bring(ours.client, move, own, words.bytes_per_s, until - time.monotonic(), quiet=quiet)
        except DwcpError as error:
            click.echo(f"{move.domain} is not warmed up: {error}; it migrates without", err=True)
        else:
            if not quiet:
                click.echo(warm.result(one), err=True)


def _bring(client: ApiClient, move: WarmMove, own: str, bytes_per_s: float, for_s: float, *, quiet: bool) -> WarmUp:
    """Warm one guest up. Raises DwcpError where that is refused or fails."""
    if move.source != own:
        raise SessionError(f"it runs on {move.source}, and only the agent there can do that")
    if for_s < GUEST_S_MIN:
        raise SessionError("there was no time for it")
    one = client.change(
        "warm",
        WarmUp,
        domain=move.domain,
        peer=move.destination,
        bytes_per_s=str(bytes_per_s),
        for_s=str(for_s),
    )
    growth = WarmGrowth()
    try:
        one = warm.follow(client, one, quiet=quiet, is_enough=growth.is_settled)
    except KeyboardInterrupt:
        client.change("warm/end", WarmUp, id=one.id)
        raise click.exceptions.Exit(_interrupted(move)) from None
    if not one.is_over:
        client.change("warm/end", WarmUp, id=one.id)
        one = warm.follow(client, one, quiet=True)
    if one.state == "failed":
        raise SessionError(one.error)
    return one


def _interrupted(move: WarmMove) -> int:
    """Say that nothing was moved; the exit code."""
    click.echo(f"stopped while {move.domain} was warmed up: nothing was moved; what was brought stays there", err=True)
    return UnfinishedError.exit_code
