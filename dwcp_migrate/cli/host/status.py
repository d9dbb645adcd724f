"""`dwcp-migrate status`: the agent, its peers, the redirect, the migrations under way."""

from pathlib import Path

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.warm import WarmUp
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.units import format_bytes

MIGRATION_HEADER = ("Id", "Domain", "Peer", "State", "Progress", "Rate", "Ratio", "ETA")
SPARE = ("Id", "Rate", "Ratio")
"""Columns that a narrow terminal goes without: `show` takes the domain too, and the ETA says more than the rate."""
NAMES = ("Peer", "Domain", "State", "ETA")
"""Columns whose cells are cut where that is not enough."""

WARM_HEADER = ("Warm-up of", "To", "State", "Passes", "Pages", "There before", "Sent", "Why")

PEER_HEADER = ("Peer", "Address", "Agent", "RTT", "Version")
PEER_SPARE = ("Version", "Address")
PEER_NAMES = ("Peer", "Agent")


class StatusReport(schema.AgentStatus, frozen=True, kw_only=True):
    """`status --json`: the agent's status and, in `peer_views`, what each peer answered."""

    peer_views: list[schema.PeerView]


@click.command()
@json_option
@agent_options
def command(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Show the agent, its peers and the migrations under way."""
    client = ApiClient(control_socket(config_path, socket_path))
    status, peers = client.status(), client.peers()
    if as_json:
        click.echo(output.as_json(merge(status, peers)))
        return
    click.echo(render(status, peers, output.terminal_width()))


def merge(status: schema.AgentStatus, peers: list[schema.PeerView]) -> StatusReport:
    """Join both answers into the object that `--json` prints.

    Args:
        status: of the agent.
        peers: as they answered just now.
    """
    fields = {name: getattr(status, name) for name in status.__struct_fields__}
    return StatusReport(**fields, peer_views=peers)


def render(status: schema.AgentStatus, peers: list[schema.PeerView], width: int = 0) -> str:
    """Lay the status out as text.

    Args:
        status: of the agent.
        peers: as they answered; empty leaves their table out.
        width: of the terminal, characters; 0 for any.
    """
    parts = [output.format_block(summary(status), width)]
    if peers:
        parts.append(peer_table(peers, width))
    if status.migrations:
        parts.append(output.fit(MIGRATION_HEADER, list(map(migration_row, status.migrations)), SPARE, width, NAMES))
    else:
        parts.append(" No migration under way.")
    if status.warm_ups:
        parts.append(output.format_table(WARM_HEADER, map(warm_row, status.warm_ups)))
    return "\n\n".join(parts)


def summary(status: schema.AgentStatus) -> list[tuple[str, str]]:
    """Say the agent's own state in a few lines."""
    libvirt = status.libvirt
    return [
        (
            "Agent",
            f"{status.name}, {status.disabled or status.state}, up {output.duration(status.now - status.started_at)}",
        ),
        ("Version", f"{status.version}, pid {status.pid}"),
        ("Configuration", configuration(status.configuration)),
        ("Redirect", redirect(status.intercept)),
        ("libvirt", f"{libvirt.uri} {libvirt.version}".strip() if libvirt.connected else _not_connected(libvirt)),
        ("Fleet", fleet(status)),
        ("Carried", carried(status.totals)),
        ("Memory", memory(status.memory)),
        ("Page store", page_store(status.store, status.now)),
    ]


def configuration(read: schema.ConfigurationStatus) -> str:
    """Say what of the configuration file is not in force; empty when all of it is."""
    if read.error:
        return "the last reload was REFUSED (see dwcp-migrate doctor)"
    return f"{', '.join(read.pending_restart)} changed: pending a restart" if read.pending_restart else ""


def redirect(intercept: schema.RedirectStatus) -> str:
    """Say whether the redirect holds."""
    if not intercept.wanted:
        return "off"
    if not intercept.armed:
        return f"NOT ARMED: {intercept.error or 'unknown reason'} (see dwcp-migrate doctor)"
    towards = output.counted(len(intercept.rules), "address", "addresses")
    alone = f"; left to QEMU alone: {', '.join(intercept.left_alone)}" if intercept.left_alone else ""
    return f"armed, ports {intercept.port_min}-{intercept.port_max} towards {towards}, {caught(intercept)}{alone}"


def caught(intercept: schema.RedirectStatus) -> str:
    """Say how many of QEMU's connections the redirect has caught."""
    return f"{output.counted(sum(rule.packets for rule in intercept.rules), 'connection', 'connections')} caught"


def carried(totals: schema.Totals) -> str:
    """Say how the migrations since the agent's start ended; one that runs unaccelerated counts at once."""
    by_result = {"completed": 0, "failed": 0}
    for key, count in totals.migrations.items():
        result = key.rpartition(" ")[2]
        by_result[result] = by_result.get(result, 0) + count
    passed = sum(totals.passthrough.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(totals.passthrough.items()))
    told = ", ".join(f"{count} {result}" for result, count in by_result.items())
    return f"{told}, {passed} unaccelerated" + (f" ({reasons})" if reasons else "")


def memory(use: schema.MemoryUse) -> str:
    """Say what migrations were granted of what they may occupy."""
    return f"{format_bytes(use.granted_bytes)} of {format_bytes(use.budget_bytes)} granted" if use.budget_bytes else ""


def page_store(use: schema.StoreUse, now: float) -> str:
    """Say what the page store holds; empty where it is off.

    Args:
        use: of the store.
        now: seconds since the epoch.
    """
    if not use.bytes_max:
        return ""
    if use.error:
        return f"NOT USABLE: {use.error} (see dwcp-migrate doctor)"
    told = (
        f"{format_bytes(use.held_bytes)} of {format_bytes(use.bytes_max)}, {output.counted(use.pages, 'page', 'pages')}"
    )
    return f"{told}, oldest use {output.duration(max(0.0, now - use.oldest_use_at))} ago" if use.oldest_use_at else told


def fleet(status: schema.AgentStatus) -> str:
    """Say where the fleet's shared state stands; empty for a host by itself."""
    engine = status.coordination
    if engine.state == "stopped" and engine.error:
        return f"STOPPED: {engine.error}"
    if len(engine.members) < 2:  # noqa: PLR2004 - itself
        return ""
    return f"{engine.engine}, {engine.state}, {f'led by {engine.leader}' if engine.leader else 'NO LEADER'}"


def peer_table(peers: list[schema.PeerView], width: int) -> str:
    """Lay out peers; what keeps one from answering has a column, or where that does not fit a line below the table.

    Args:
        peers: at least one.
        width: of the terminal, characters; 0 for any.
    """
    rows = [peer_row(peer) for peer in peers]
    broken = [peer for peer in peers if not peer.reachable]
    if not broken:
        return output.fit(PEER_HEADER, rows, PEER_SPARE, width, PEER_NAMES)
    errors = [_error(peer) for peer in peers]
    whole = output.format_table(
        (*PEER_HEADER, "Error"), [(*row, error) for row, error in zip(rows, errors, strict=True)]
    )
    if not width or max(map(len, whole.splitlines())) <= width:
        return whole
    table = output.fit(PEER_HEADER, rows, PEER_SPARE, width, PEER_NAMES)
    return "\n".join([table, "", *(output.wrap(f" {peer.name}: {_error(peer)}", width, "   ") for peer in broken)])


def peer_row(peer: schema.PeerView) -> tuple[str, ...]:
    """Lay out one peer, without its error."""
    address = f"{peer.addresses[0]}:{peer.port}" if peer.addresses else output.UNKNOWN
    if peer.reachable:
        return peer.name, address, peer.state, f"{peer.rtt_s * 1000:.1f} ms", peer.version
    return peer.name, address, peer.code, output.UNKNOWN, output.UNKNOWN


def _error(peer: schema.PeerView) -> str:
    return " ".join(peer.error.split())


def migration_row(migration: schema.Migration) -> tuple[str, ...]:
    """Lay out one running migration."""
    return (
        migration.id[:8],
        output.domain(migration),
        output.peer(migration),
        state(migration),
        output.percent(output.progress(migration)),
        output.rate(migration),
        output.ratio(migration),
        output.eta(migration),
    )


def warm_row(one: WarmUp) -> tuple[str, ...]:
    """Lay out one warm-up."""
    why = one.error or one.detail or output.UNKNOWN
    return (
        one.domain,
        one.peer,
        one.state,
        str(one.passes),
        str(one.pages),
        str(one.known_pages),
        format_bytes(one.wire_bytes),
        why,
    )


def state(migration: schema.Migration) -> str:
    """Say the state, and why where the operator would ask."""
    if migration.passthrough_reason:
        return f"{migration.state} ({migration.passthrough_reason})"
    return f"{migration.state} {migration.iteration}" if migration.state == "precopy" else migration.state


def _not_connected(libvirt: schema.Libvirt) -> str:
    if not libvirt.uri:
        return "not used (libvirt_uri is empty)"
    return f"NOT CONNECTED: {libvirt.error} (see dwcp-migrate doctor)"
