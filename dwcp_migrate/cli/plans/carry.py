"""`dwcp-migrate carry ID`: the helper process of an agent that carries a kept plan out; not for people.

It ends with its agent (the kernel says so), leaves what runs to libvirt then, and exits with 0 only when nothing is
left to do for it.
"""

import contextlib
import ctypes
import os
import signal
from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support.options import config_option
from dwcp_migrate.errors import UnfinishedError
from dwcp_migrate.orchestration.carried_plan import CarriedPlan
from dwcp_migrate.orchestration.plan_store import AgentPlans, find_plan
from dwcp_migrate.orchestration.workspace import open_workspace, own_name

PR_SET_PDEATHSIG = 1


@click.command(hidden=True)
@click.argument("number", type=int)
@config_option
def command(*, number: int, config_path: Path | None) -> None:
    """Carry plan NUMBER out until it ends, or this process is told to."""
    _end_with_parent()
    request = find_plan(AgentPlans(ApiClient(control_socket(config_path, None))), number).record.request
    options = request.options
    with open_workspace(config_path, None, request.at_once, copies_storage=options.copies_storage) as ours:
        assert ours.client is not None
        carried = CarriedPlan(ours, AgentPlans(ours.client), number, own_name(ours.config, ours.client))
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: carried.end_now())
        with contextlib.suppress(UnfinishedError):  # left to libvirt; the next carrier goes on
            carried.carry_out()
            return
    raise SystemExit(UnfinishedError.exit_code)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the agent dies; where it has died already, end now."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        raise SystemExit(UnfinishedError.exit_code)
