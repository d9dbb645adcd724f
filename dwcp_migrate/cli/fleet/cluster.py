"""`dwcp-migrate cluster`: who keeps the fleet's shared state, who leads, who may vote."""

from pathlib import Path
from typing import Any

import click
import msgspec

from dwcp_migrate.api import cluster as api
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.fleet import backup, repairs
from dwcp_migrate.cli.fleet.pbft import command as pbft
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.agent_group import find_group, group_option, warn_of_closed_directory
from dwcp_migrate.cli.support.answers import IdentityFile
from dwcp_migrate.cli.support.composed import MembersListed
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.state.fleet.fleet_clock import SKEW_S
from dwcp_migrate.state.fleet.model import Limits
from dwcp_migrate.units import format_bytes, format_rate

MEMBER_HEADER = ("Member", "Role", "Connected", "Behind")
HOST_HEADER = ("Host", "State", "Trust domain", "CPUs", "Memory", "Heard")


@click.group()
def command() -> None:
    """Show and change the fleet's shared state: members, leader, policy."""


@command.command()
@json_option
@agent_options
def status(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Show where the shared state stands, seen from this host."""
    found = ApiClient(control_socket(config_path, socket_path)).ask("cluster", api.Cluster)
    click.echo(output.as_json(found) if as_json else render(found))


@command.command()
@json_option
@agent_options
def members(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """List the members and the hosts."""
    found = ApiClient(control_socket(config_path, socket_path)).ask("cluster", api.Cluster)
    if as_json:
        click.echo(output.as_json(MembersListed(members=found.engine.members, hosts=found.hosts)))
        return
    click.echo(f"{member_table(found)}\n\n{host_table(found)}")


command.add_command(pbft, "pbft")
command.add_command(backup.export)
command.add_command(backup.import_)
for repair in (repairs.forget_host, repairs.forget_domain, repairs.assign, repairs.set_time, repairs.raise_version):
    command.add_command(repair)


@command.command()
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/dwcp-migrate/pbft.key"),
    show_default=True,
    help="Where this host's secret key is; made if it is not there, never replaced.",
)
@group_option
@json_option
def key(*, path: Path, group: str | None, as_json: bool) -> None:
    """Make this host's key for the PBFT group; shows the public one, for [coordination.pbft] of every host."""
    from dwcp_migrate.consensus.io.key_file import make_identity

    readers = find_group(group)
    public = make_identity(path, readers).public.hex()
    warn_of_closed_directory(path.parent, readers)
    click.echo(output.as_json(IdentityFile(key=str(path), public_key=public)) if as_json else public)


def _change(verb: str, name: str, config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    done = ApiClient(control_socket(config_path, socket_path)).change(f"cluster/{verb}", api.Changed, name=name)
    click.echo(output.as_json(done) if as_json else done.message)


@command.command()
@click.argument("name")
@json_option
@agent_options
def add(*, name: str, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Give the host NAME a vote; its agent must run and be a peer of the leader."""
    _change("add", name, config_path, socket_path, as_json=as_json)


@command.command()
@click.argument("name")
@json_option
@agent_options
def remove(*, name: str, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Take the vote of the host NAME; it follows on without one."""
    _change("remove", name, config_path, socket_path, as_json=as_json)


@command.command("transfer-leader")
@click.argument("name", required=False, default="")
@json_option
@agent_options
def transfer_leader(*, name: str, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Let NAME lead, or whoever is furthest; run it on the leader."""
    _change("transfer-leader", name, config_path, socket_path, as_json=as_json)


@command.command()
@click.option("--fleet", type=click.IntRange(0), help="Migrations at once in the fleet; 0 is no limit, here and below.")
@click.option("--outgoing", type=click.IntRange(0), help="Migrations at once from one host.")
@click.option("--incoming", type=click.IntRange(0), help="Migrations at once to one host.")
@click.option(
    "--link",
    "links",
    metavar="SOURCE DESTINATION MBIT",
    type=(str, str, click.FloatRange(0)),
    multiple=True,
    help="Megabits a second that may be reserved of a link.",
)
@json_option
@agent_options
def limits(
    *,
    links: tuple[tuple[str, str, float], ...],
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
    **counts: int | None,
) -> None:
    """Show the fleet's limits, or set those that are given."""
    client = ApiClient(control_socket(config_path, socket_path))
    changes: dict[str, Any] = {name: count for name, count in counts.items() if count is not None}
    found = client.ask("cluster", api.Cluster).limits
    if links:
        given = {f"{source}>{destination}": round(mbit * 1e6 / 8) for source, destination, mbit in links}
        changes["link_bytes_per_s"] = {name: rate for name, rate in {**found.link_bytes_per_s, **given}.items() if rate}
    if changes:
        found = msgspec.structs.replace(found, **changes)
        client.change("cluster/limits", api.Changed, msgspec.json.encode(found))
    click.echo(output.as_json(found) if as_json else output.format_block(limit_rows(found)))


def limit_rows(found: Limits) -> list[tuple[str, str]]:
    """Say the limits in a few lines."""
    counts = {"Fleet": found.fleet, "Outgoing": found.outgoing, "Incoming": found.incoming}
    rows = [(name, f"{count} migrations at once" if count else "no limit") for name, count in counts.items()]
    return [*rows, *((name, format_rate(rate)) for name, rate in found.link_bytes_per_s.items())]


def render(cluster: api.Cluster) -> str:
    """Lay the cluster out as text."""
    return "\n\n".join([output.format_block(summary(cluster)), member_table(cluster), host_table(cluster)])


def summary(cluster: api.Cluster) -> list[tuple[str, str]]:
    """Say where it stands in a few lines."""
    engine = cluster.engine
    return [
        ("Shared state", f"{engine.engine}, this host is {engine.state}" if cluster.is_shared else "this host's own"),
        ("Leader", f"{engine.leader or 'none'}, term {engine.term}"),
        ("Log", f"{engine.commit_index} committed, {engine.applied_index} applied, {format_bytes(engine.log_bytes)}"),
        ("Commit", latency(engine.commit_ms_p50, engine.commit_ms_p99)),
        ("Requests", f"{engine.requests} confirmed, {engine.requests_failed} not"),
        ("Time", f"{engine.time_ahead_s:.0f} s ahead of this host's clock" if engine.time_ahead_s > SKEW_S else ""),
        ("Required", "yes: migrations need the fleet's agreement" if cluster.is_required else "no"),
        ("PBFT", policy(cluster)),
        ("Error", engine.error),
    ]


def policy(cluster: api.Cluster) -> str:
    """Say what happens across trust domains."""
    if cluster.pbft == "off":
        return "off: all hosts are of one trust domain"
    return "a migration between trust domains needs a certificate"


def latency(p50_ms: float, p99_ms: float) -> str:
    """Say how long commits took.

    Args:
        p50_ms: median; below 0 before the first commit.
        p99_ms: quantile 0.99.

    Returns:
        Empty before the first commit.
    """
    return f"{p50_ms:.1f} ms half of them, {p99_ms:.1f} ms 99 of 100" if p50_ms >= 0 else ""


def member_table(cluster: api.Cluster) -> str:
    """Lay the members out."""
    rows = [
        (
            member.name,
            member.role,
            "yes" if member.connected else "no",
            str(member.behind) if member.behind >= 0 else output.UNKNOWN,
        )
        for member in cluster.engine.members
    ]
    return output.format_table(MEMBER_HEADER, rows)


def host_table(cluster: api.Cluster) -> str:
    """Lay the hosts out."""
    rows = [
        (
            host.name,
            host.state,
            host.trust_domain or output.UNKNOWN,
            str(host.capacity.cpus or output.UNKNOWN),
            output.size(host.capacity.memory_bytes or -1),
            output.moment(host.heard_at),
        )
        for host in cluster.hosts
    ]
    return output.format_table(HOST_HEADER, rows)
