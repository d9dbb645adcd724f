"""`dwcp-migrate doctor`: what is wrong on this host, why it matters, what to do. Exit 1 when a check fails."""

import time
from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.cli.host import checks, host_files
from dwcp_migrate.cli.host.check import EXIT_FAILED, MARKS, Check, render_check, worst
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.answers import Diagnosis
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.config import DEFAULT_PATH, Config, load
from dwcp_migrate.errors import AgentUnreachableError, ConfigError


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Show only checks that are not ok.")
@click.option("--root", default="/", type=click.Path(path_type=Path), hidden=True)
@json_option
@agent_options
def command(*, quiet: bool, root: Path, as_json: bool, config_path: Path | None, socket_path: Path | None) -> int:
    """Check this host and say what to do about what is wrong.

    Exits 0 when nothing fails (warnings are none), 1 otherwise.
    """
    found = gather(config_path, socket_path, root)
    judged = checks.examine(found)
    if found.facts is None and found.config is not None:
        from dwcp_migrate.cli.host.deep.files import judge_files
        from dwcp_migrate.cli.host.deep.network import judge_network

        judged += [*judge_files(found.config, found.now), *judge_network(found.config, agent_runs=False)]
    verdict = worst(judged)
    shown = [check for check in judged if not quiet or check.verdict != "ok"]
    if as_json:
        click.echo(output.as_json(Diagnosis(verdict=verdict, checks=shown)))
    else:
        for check in shown:
            click.echo(render_check(check))
        click.echo(summary(judged))
    return EXIT_FAILED if verdict == "fail" else 0


def gather(config_path: Path | None, socket_path: Path | None, root: Path) -> checks.Findings:
    """Ask the agent, and read the host's files.

    Args:
        config_path: of the configuration; None is the default one.
        socket_path: of the agent; None takes the configuration's.
        root: directory below which the host's files are; a lab's hosts have their own.
    """
    config, config_error, config_hint = _configuration(config_path or DEFAULT_PATH)
    facts, agent_error, agent_hint = None, "", ""
    try:
        facts = ApiClient(socket_path or (config or Config()).control_socket).facts()
    except AgentUnreachableError as error:
        agent_error = str(error)
        agent_hint = error.hint if isinstance(error.__cause__, PermissionError) else ""
    host = host_files.examine(root)
    names = [peer.name for peer in facts.peers] if facts else []
    return checks.Findings(
        facts=facts,
        agent_error=agent_error,
        config=config,
        config_error=config_error,
        host=host,
        resolved=host_files.resolve_names([*names, *filter(None, [host.migration_host])]),
        now=time.time(),
        agent_hint=agent_hint,
        config_hint=config_hint,
    )


def _configuration(path: Path) -> tuple[Config | None, str, str]:
    """The configuration, or None, what is wrong and what to do about it."""
    try:
        return load(path), "", ""
    except ConfigError as error:
        return None, str(error), error.hint or "correct the file"


def summary(judged: list[Check]) -> str:
    """Say how many checks were ok, warned and failed."""
    counts = {mark: sum(check.verdict == mark for check in judged) for mark in MARKS}
    warnings = output.counted(counts["warn"], "warning", "warnings")
    return f"{counts['ok']} ok, {warnings}, {counts['fail']} failed"
