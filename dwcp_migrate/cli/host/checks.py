"""The judgements of `dwcp-migrate doctor`: facts in, checks out, nothing read, no clock.

The rule: each check says what was found, why it matters to a migration and what to do; `warn` means that migrations
work but not as well as they could (or cannot be judged), `fail` means that some run unaccelerated or are refused.

    api.schema.Facts (or why there are none) + HostFiles + Config -> list[Check], always the same ids in the same order
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from dwcp_migrate.api import schema
from dwcp_migrate.cli.fleet.fleet_checks import judge_fleet, judge_group
from dwcp_migrate.cli.host.check import Check, advised_check, required_check
from dwcp_migrate.cli.host.host_files import HostFiles
from dwcp_migrate.cli.host.keepalive_check import patience
from dwcp_migrate.cli.host.memory_check import judge_store, memory
from dwcp_migrate.cli.support import output
from dwcp_migrate.config import Config, same_name
from dwcp_migrate.config.addresses import normalise_address
from dwcp_migrate.units import PORT_MAX, PORT_MIN

DAY_S: Final = 86400.0
MARKS_OF_OTHERS: Final = {
    0x8000: "kubelet drops it",
    0x4000: "kube-proxy masquerades it",
    0x0F00: "Cilium",
    0xFFFF0000: "Calico, Tailscale, Cilium",
}
"""Bits of socket marks that rules on many hosts act on."""

EXPIRY_WARNING_S: Final = 14 * DAY_S
CONNTRACK_SHARE_MAX: Final = 0.9
DESCRIPTORS_SHARE_MAX: Final = 0.8
CLOCK_DIFFERENCE_S_MAX: Final = 5.0


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that is judged.

    Attributes:
        facts: the agent's, None when it does not answer.
        agent_error: why it does not, with `agent_hint` where what to do about it is known.
        config: the configuration file, None when it is wrong or unreadable.
        config_error: why, with `config_hint`.
        host: this host.
        resolved: addresses of the peers' names and of qemu.conf's migration_host, as this host resolves them.
        now: seconds since the epoch.
    """

    facts: schema.Facts | None
    agent_error: str
    config: Config | None
    config_error: str
    host: HostFiles
    now: float
    resolved: dict[str, frozenset[str]] = {}
    agent_hint: str = ""
    config_hint: str = ""


def examine(found: Findings) -> list[Check]:
    """Judge all facts of a host."""
    checks = [*_configuration(found), _hook_installed(found.host)]
    if found.facts is None:
        checks.insert(0, _agent_down(found.agent_error, found.agent_hint))
    else:
        names = _peer_names(found.facts.peers, found.resolved)
        checks = [_agent(found.facts), *checks, *_facts(found.facts, found.now), *names]
    return [*checks, *_host(found)]


def _agent_down(error: str, hint: str) -> Check:
    return Check(
        id="agent",
        verdict="fail",
        what=error,
        why="without the agent every migration runs as it would without this software",
        remedy=hint or "systemctl status dwcp-migrate; journalctl -u dwcp-migrate -n 50",
    )


def _agent(facts: schema.Facts) -> Check:
    return advised_check(
        "agent",
        hold=facts.state == "running",
        what=f"{facts.name}, version {facts.version}, {facts.state}",
        why="a draining agent lets new migrations run unaccelerated",
        remedy="dwcp-migrate uncordon (enable, where status says that it is disabled), or wait for the upgrade",
    )


def _configuration(found: Findings) -> Iterator[Check]:
    why = (
        "the agent goes on with the configuration that it last read without error"
        if found.facts is not None
        else "the agent does not start with it"
    )
    stale = found.facts.configuration_error if found.facts else ""
    if found.config is None:
        yield Check(id="configuration", verdict="fail", what=found.config_error, why=why, remedy=found.config_hint)
    elif stale:
        yield Check(
            id="configuration",
            verdict="fail",
            what=f"the last reload was refused: {stale}",
            why=why,
            remedy="correct the file, then systemctl reload dwcp-migrate",
        )
    else:
        yield Check(id="configuration", verdict="ok", what="readable and valid", why=why)
    pending = found.facts.pending_restart if found.facts else []
    if pending:
        yield Check(
            id="pending-restart",
            verdict="warn",
            what=f"changed in the file, and not in force: {', '.join(pending)}",
            why="what listens, and how this host takes part in the fleet's state, is read at the start only",
            remedy="systemctl restart dwcp-migrate: migrations that run go on (`dwcp-migrate config diff` shows both)",
        )


def _hook_installed(host: HostFiles) -> Check:
    return required_check(
        "hook-installed",
        hold=not host.hook_problem,
        what=f"{host.hook_path}: {host.hook_problem or 'installed'}",
        why="libvirt announces incoming migrations through it; an agent dials no QEMU that was not announced",
        remedy="install the hook with mode 0755 and reload libvirtd: it looks for hooks only then",
    )


def _facts(facts: schema.Facts, now: float) -> Iterator[Check]:
    yield _redirect(facts.intercept)
    yield _libvirt(facts.libvirt)
    yield _hook(facts.hook)
    yield from (_certificate(one, now) for one in facts.certificates)
    if facts.tls_error:
        yield _tls(facts.tls_error)
    yield _name(facts)
    yield from (_listener(one) for one in facts.listeners)
    yield from (_addresses(peer) for peer in facts.peers if peer.not_redirected)
    if facts.foreign:
        yield _foreign(facts.foreign)
    yield from (_peer(one, facts.name) for one in facts.peers) if facts.peers else iter([_NO_PEER])
    yield from judge_fleet(facts.fleet)
    yield from judge_group(facts.group)
    yield from _process(facts)
    yield memory(facts.memory)
    if facts.store.bytes_max:
        yield judge_store(facts.store, now)
    if facts.ports_not_redirected:
        yield _ports_of_others(facts.ports_not_redirected)


def _ports_of_others(which: list[str]) -> Check:
    return advised_check(
        "peer-ports",
        hold=False,
        what="; ".join(which),
        why="a migration that dials a port outside of the redirected range never reaches the agent",
        remedy="set intercept.port_min and port_max here so that they hold every host's range of qemu.conf",
    )


def _redirect(intercept: schema.RedirectStatus) -> Check:
    broken = intercept.wanted and not intercept.armed
    if broken:
        what = f"not armed: {intercept.error or 'the kernel holds no such rules'}"
    else:
        towards = output.counted(len(intercept.rules), "address", "addresses")
        alone = f"; left to QEMU alone, which is faster: {', '.join(intercept.left_alone)}"
        armed = f"armed towards {towards}{alone if intercept.left_alone else ''}"
        what = armed if intercept.wanted else "off"
    return required_check(
        "redirect",
        hold=not broken,
        what=what,
        why="the redirect is how a plain virsh migrate reaches the agent",
        remedy=_REDIRECT_REMEDY if intercept.addresses else "add [[peers]] with addresses that are known on this host",
    )


_REDIRECT_REMEDY: Final = (
    "needs CAP_NET_ADMIN and the kernel modules nf_tables, nft_redir (nft list ruleset shows what is there)"
)


def _libvirt(libvirt: schema.Libvirt) -> Check:
    down = bool(libvirt.uri) and not libvirt.connected
    remedy = "is libvirtd running, and is the agent's user in the group libvirt? The agent connects again by itself"
    if not libvirt.uri:
        remedy = "set libvirt_uri in the configuration, then systemctl restart dwcp-migrate"
    return Check(
        id="libvirt",
        verdict="warn" if down or not libvirt.uri else "ok",
        what=f"{libvirt.uri}: {libvirt.error}" if down else f"{libvirt.uri or 'not used'} {libvirt.version}".strip(),
        why="without it migrations are accelerated, but have no domain name, progress or downtime",
        remedy=remedy if down or not libvirt.uri else "",
    )


def _hook(hook: schema.Hook) -> Check:
    return required_check(
        "hook-socket",
        hold=hook.listening,
        what=f"{hook.socket}: {'listening' if hook.listening else 'not listening'}, {hook.pending} announced",
        why="the hook announces incoming migrations there",
        remedy="systemctl restart dwcp-migrate",
    )


def _certificate(certificate: schema.CertificateExpiry, now: float) -> Check:
    what, verdict, remedy = f"{certificate.path}: valid", "ok", ""
    renew = "issue a new one (dwcp-migrate cert issue) and put it in place: the next migration reads it"
    left_s = certificate.not_after - now
    if certificate.error:
        what, verdict, remedy = f"{certificate.path}: {certificate.error}", "fail", renew
    elif now < certificate.not_before:
        what, verdict, remedy = f"{certificate.path}: not valid yet", "fail", "set this host's clock"
    elif left_s <= 0:
        what, verdict, remedy = f"{certificate.path}: expired", "fail", renew
    elif left_s < EXPIRY_WARNING_S:
        what, verdict, remedy = f"{certificate.path}: expires in {left_s / DAY_S:.1f} days", "warn", renew
    else:
        what = f"{certificate.path}: valid for {left_s / DAY_S:.0f} days"
    return Check(
        id=f"certificate-{certificate.use}",
        verdict="fail" if verdict == "fail" else "warn" if verdict == "warn" else "ok",
        what=what,
        why="agents prove who they are to each other with it; without it migrations run unaccelerated",
        remedy=remedy,
    )


def _tls(error: str) -> Check:
    return Check(
        id="tls-key",
        verdict="fail",
        what=error,
        why="the agent can prove to no peer who it is: migrations run unaccelerated",
        remedy="the agent's user has to read certificate and key: install -o root -g dwcp-migrate -m 0640 KEY",
    )


def _name(facts: schema.Facts) -> Check:
    return required_check(
        "certificate-name",
        hold=facts.name_in_certificate,
        what=f"the host certificate {'carries' if facts.name_in_certificate else 'does not carry'} {facts.name}",
        why="a peer accepts this host only by the name that it knows it by",
        remedy=f"issue one for {facts.name}, or set name in the configuration",
    )


def _listener(listener: schema.ListenerStatus) -> Check:
    return required_check(
        f"listener-{listener.use}",
        hold=listener.listening,
        what=f"{listener.address}: {'listening' if listener.listening else listener.error or 'not listening'}",
        why="an agent that does not listen cannot be reached there",
        remedy="ss -ltnp shows who holds the port; another one can be configured",
    )


_NO_PEER: Final = Check(
    id="peers",
    verdict="warn",
    what="no peer is configured",
    why="only migrations to and from configured peers are accelerated",
    remedy="add [[peers]] to the configuration, then systemctl reload dwcp-migrate",
)


def _foreign(connections: list[str]) -> Check:
    return Check(
        id="foreign",
        verdict="warn",
        what=f"services of this host that migrate no guest are connected through the agent to {', '.join(connections)}",
        why="they dialled a peer in libvirt's port range before the redirect knew them; they end with the agent",
        remedy="restart those services: their next connections are not redirected; or give one of both other ports",
    )


def _addresses(peer: schema.PeerView) -> Check:
    return Check(
        id=f"addresses-{peer.name}",
        verdict="fail",
        what=f"{peer.name} has no address to redirect: {peer.not_redirected}",
        why="the redirect matches IP addresses; migrations to this peer run unaccelerated and unseen",
        remedy="list its addresses in [[peers]], or names that resolve on this host (getent ahosts NAME)",
    )


def _peer(peer: schema.PeerView, own_name: str) -> Check:
    where = f"{peer.name} ({peer.addresses[0]}:{peer.port})"
    if peer.reachable:
        what = f"{where}: answers in {peer.rtt_s * 1000:.1f} ms, version {peer.version}"
        differences = list(_differences(peer, own_name))
        return Check(
            id=f"peer-{peer.name}",
            verdict="warn" if differences else "ok",
            what="; ".join([what, *(what for what, _ in differences)]),
            why=_PEER_DIFFERS_WHY if differences and not peer.silent else _PEER_WHY,
            remedy="; ".join(remedy for _, remedy in differences),
        )
    firewall = f"is its agent running, and does its firewall let port {peer.port} in?"
    return Check(
        id=f"peer-{peer.name}",
        verdict="fail",
        what=f"{where}: {peer.error or peer.code}",
        why=_PEER_WHY,
        remedy=peer.hint or firewall,
    )


def _differences(peer: schema.PeerView, own_name: str) -> Iterator[tuple[str, str]]:
    """Faults of a peer that answers, each with its remedy."""
    for address, error in peer.silent.items():
        yield f"at {address} it does not answer: {error}", f"let port {peer.port} of {address} in, or take it out"
    if abs(peer.clock_ahead_s) > CLOCK_DIFFERENCE_S_MAX:
        way = "ahead of" if peer.clock_ahead_s > 0 else "behind"
        yield f"its clock is {abs(peer.clock_ahead_s):.0f} s {way} this host's", "run an NTP client on both hosts"
    if peer.calls_itself and not same_name(peer.calls_itself, peer.name):
        yield (
            f"it calls itself {peer.calls_itself}, its certificate says {peer.name}",
            f'set name = "{peer.name}" in its configuration',
        )
    if peer.calls_us and not same_name(peer.calls_us, own_name):
        yield (
            f"it calls this host {peer.calls_us}, which calls itself {own_name}",
            f'set name = "{peer.calls_us}" in this host\'s configuration',
        )


_PEER_DIFFERS_WHY: Final = "the fleet's tickets and certificates name hosts and times: both ends have to mean the same"

_PEER_WHY: Final = "migrations to a host whose agent does not answer with a good certificate run unaccelerated"


def _process(facts: schema.Facts) -> Iterator[Check]:
    yield advised_check(
        "data-process",
        hold=facts.spare_ready,
        what="a warm data process is ready" if facts.spare_ready else "no warm data process is ready",
        why="a migration that starts without one waits for it, or runs unaccelerated",
        remedy="ask again in a few seconds; then journalctl -u dwcp-migrate",
    )
    yield advised_check(
        "history",
        hold=not facts.history_error,
        what=facts.history_error or "written",
        why="dwcp-migrate history forgets at the agent's restart what it cannot write",
        remedy="check owner and space of the state directory",
    )
    yield advised_check(
        "core-dumps",
        hold=facts.core_dumps_off,
        what="off" if facts.core_dumps_off else "on",
        why="a core dump of the agent would hold guest memory",
        remedy="start it by its systemd unit, which sets LimitCORE=0",
    )
    used = facts.open_descriptors / max(1, facts.open_descriptors_max)
    yield advised_check(
        "descriptors",
        hold=used <= DESCRIPTORS_SHARE_MAX,
        what=f"{facts.open_descriptors} of {facts.open_descriptors_max} in use",
        why="an agent without descriptors cannot accept a connection",
        remedy="raise LimitNOFILE in the unit",
    )


def _host(found: Findings) -> Iterator[Check]:
    config = found.config or Config()
    yield _ports(found.host, config)
    if config.intercept.mark:
        yield _mark(config.intercept.mark)
    yield _migration_host(found.host, found.resolved)
    yield _conntrack(found.host, config)
    yield _congestion(found.host, config.link.congestion_control)
    yield patience(found.host.keepalive_s, config.link.loss_s_max)
    synchronised = bool(found.host.clock_synchronised)
    yield advised_check(
        "clock",
        hold=synchronised,
        what="synchronised" if synchronised else "not synchronised, as far as the kernel knows",
        why="certificates are judged by the clock, and histories of two hosts are compared by it",
        remedy="run chrony, systemd-timesyncd or another NTP client",
    )


def _mark(mark: int) -> Check:
    meant = [f"{mark & bits:#x} ({whose})" for bits, whose in MARKS_OF_OTHERS.items() if mark & bits]
    return advised_check(
        "mark",
        hold=not meant,
        what=f"intercept.mark = {mark:#x}" + (f" has bits that others act on: {', '.join(meant)}" if meant else ""),
        why="a rule that drops or translates such marks does so to the agent's own connections",
        remedy="remove intercept.mark: without it the agent's connections pass by its user",
    )


def _ports(host: HostFiles, config: Config) -> Check:
    here = (host.port_min or PORT_MIN, host.port_max or PORT_MAX)
    ours = (config.intercept.port_min, config.intercept.port_max)
    covered = ours[0] <= here[0] and here[1] <= ours[1]
    if not host.qemu_conf_readable:
        what = "qemu.conf cannot be read here; assuming libvirt's default ports"
    else:
        what = f"libvirt migrates to {here[0]}-{here[1]}, the agent covers {ours[0]}-{ours[1]}"
    return required_check(
        "ports",
        hold=covered,
        what=what,
        why="only connections to the covered ports are redirected, and only those ports are dialled",
        remedy="set intercept.port_min and port_max to those of qemu.conf, on all hosts",
    )


def _peer_names(peers: list[schema.PeerView], resolved: dict[str, frozenset[str]]) -> Iterator[Check]:
    """Judge whether a migration to a peer's name goes to an address that is caught."""
    for peer in peers:
        listed = {normalise_address(address) for address in peer.addresses}
        missed = sorted({normalise_address(address) for address in resolved.get(peer.name, frozenset())} - listed)
        found = f"{peer.name} resolves to {', '.join(missed)}, not in its addresses"
        yield advised_check(
            f"name-{peer.name}",
            hold=not missed,
            what=found if missed else f"{peer.name} resolves to no address that is not listed",
            why="libvirt migrates to what the destination's name resolves to; only listed addresses are caught",
            remedy=f"add {', '.join(missed)} to the addresses of {peer.name}, then systemctl reload dwcp-migrate",
        )


def _migration_host(host: HostFiles, resolved: dict[str, frozenset[str]]) -> Check:
    """Judge what this host's qemu.conf tells others: where they migrate to, and where QEMU listens."""
    named, listens = host.migration_host, host.migration_address
    everywhere = listens in {"", "0.0.0.0", "::"}  # noqa: S104 - what libvirt calls all addresses
    own = normalise_address(named)
    others = {normalise_address(address) for address in resolved.get(named, frozenset())} if named else set()
    apart = bool(named) and not everywhere and normalise_address(listens) not in {own, *others}
    where = f"migration_host {named} ({', '.join(sorted(others - {own})) or 'as it is'})" if named else ""
    what = "; ".join(filter(None, [where, "" if everywhere else f"QEMU listens on {listens} only"]))
    return advised_check(
        "migration-host",
        hold=not apart,
        what=what or "qemu.conf sets neither migration_host nor migration_address",
        why="others migrate to migration_host: their [[peers]] entry of this host has to list its address",
        remedy="let migration_host of qemu.conf resolve to migration_address, and list that address on the other hosts",
    )


def _conntrack(host: HostFiles, config: Config) -> Check:
    why = "the redirect is a NAT rule, which needs connection tracking"
    if host.conntrack_count is None:
        return advised_check(
            "conntrack",
            hold=not config.intercept.redirect,
            what="connection tracking is not to be seen in /proc",
            why=why,
            remedy="modprobe nf_conntrack; a notrack rule for the migration ports breaks the redirect",
        )
    full = host.conntrack_count > CONNTRACK_SHARE_MAX * (host.conntrack_max or host.conntrack_count + 1)
    return advised_check(
        "conntrack",
        hold=not full,
        what=f"{host.conntrack_count} of {host.conntrack_max} connections tracked",
        why=why,
        remedy="raise net.netfilter.nf_conntrack_max",
    )


def _congestion(host: HostFiles, wanted: str) -> Check:
    offered = " ".join(host.congestion_controls)
    missing = bool(wanted) and wanted not in host.congestion_controls
    return advised_check(
        "congestion-control",
        hold=not missing,
        what=f"{wanted} is not offered by the kernel ({offered})" if missing else wanted or "the kernel's default",
        why="channels fall back to the kernel's default, which may be slower on lossy links",
        remedy=f"modprobe tcp_{wanted}",
    )
