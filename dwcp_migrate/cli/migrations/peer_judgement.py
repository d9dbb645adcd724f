"""The judgements of `dwcp-migrate check PEER`: facts in, checks and a conclusion out, nothing read, no clock.

The rule: a check that fails says why a migration would run unaccelerated, by the very code that its record would have
(`docs/operations.md` has the table); a warning costs speed, or could not be judged. The first that fails decides.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from dwcp_migrate.api.peer_check import LinkMeasured, PeerCheck
from dwcp_migrate.cli.host.check import Check, Verdict, advised_check, required_check
from dwcp_migrate.cli.support import output
from dwcp_migrate.config import same_name
from dwcp_migrate.config.addresses import normalise_address
from dwcp_migrate.protocol.control import Examined
from dwcp_migrate.refusals import UNACCELERATED, explain_code
from dwcp_migrate.units import PORT_MAX, PORT_MIN, format_bytes, format_rate

CLOCK_DIFFERENCE_S_MAX: Final = 5.0
DAY_S: Final = 86400.0
EXPIRY_WARNING_S: Final = 14 * DAY_S

FAILURES: Final = {
    "redirect": "not-caught",
    "own-agent": "",
    "own-certificate": "certificate",
    "fleet": "no-quorum",
    "agent": "",
    "accepts": "",
    "own-addresses": "address",
    "hook": "not-announced",
    "link": "no-link",
}
"""Checks that may fail, and the reason in the record that follows; empty: the facts name it."""


OWN_REMEDIES: Final = {
    "draining": "dwcp-migrate uncordon, or wait for the upgrade that drains this agent",
    "observe": "set policy.observe = false here, then dwcp-migrate reload",
    "sessions": "raise policy.sessions_max here, or migrate fewer domains at once",
    "memory": "wait until one of this host's migrations has ended; docs/sizing.md",
    "step-aside": 'policy.step_aside = "encrypted" keeps TLS all the same',
}
"""Against this host's own reasons to let a migration run unaccelerated."""


class PeerVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The conclusion.

    Attributes:
        accelerated: a migration would be.
        reason: why not, as the code of a record; empty when it would be.
        bytes_per_s: what the link would carry for it, on the wire; 0 where that was not measured.
        is_lower_bound: it may carry more.
        memory_bytes_per_s: guest memory a second at the ratio of earlier migrations there; 0 without any.
        text: all of it for people.
    """

    accelerated: bool
    reason: str = ""
    bytes_per_s: float = 0.0
    is_lower_bound: bool = False
    memory_bytes_per_s: float = 0.0
    text: str


def judge_peer(found: PeerCheck, now: float) -> list[Check]:
    """Judge all facts of a peer.

    Args:
        found: the facts.
        now: seconds since the epoch.
    """
    own = [_own_agent(found), *_own_certificates(found, now), *_fleet(found)]
    checks = [_name(found), _redirect(found), *own, _agent(found)]
    if not found.peer.reachable:
        return checks
    checks += [*_addresses(found), _versions(found), _clock(found), _names(found)]
    if found.examined is None:
        why = "whether the peer would take a migration can only be said by itself"
        checks.append(
            Check(id="accepts", verdict="warn", what=found.examine_error, why=why, remedy="upgrade the peer's agent")
        )
    else:
        checks += _examined(found, found.examined, now)
    return [*checks, _link(found)]


def conclude(found: PeerCheck, checks: list[Check]) -> PeerVerdict:
    """Draw the conclusion from the checks.

    Args:
        found: the facts.
        checks: `judge_peer`'s.
    """
    name = found.peer.name
    failed = next((check for check in checks if check.verdict == "fail"), None)
    if failed is not None:
        reason = FAILURES.get(failed.id.partition(":")[0], "") or _named_reason(failed.id, found)
        said = f"A migration to {name} would run unaccelerated ({reason}), as stock QEMU does it: {failed.what}."
        return PeerVerdict(accelerated=False, reason=reason, text=f"{said}\nWhat to do: {failed.remedy}.")
    rate, is_lower_bound, said = _rate(found)
    ratio = found.past.raw_bytes / found.past.wire_bytes if found.past.wire_bytes else 0.0
    lines = [f"A migration to {name} would be accelerated{said}."]
    if found.is_agreement_required:
        lines.append("The fleet has to agree to it, which is asked when it begins (coordination.require).")
    if ratio and rate:
        lines.append(
            f"The last {output.counted(found.past.count, 'migration', 'migrations')} there took {ratio:.1f} bytes of "
            f"memory for each on the wire: about {format_bytes(rate * ratio)} of guest memory a second."
        )
    return PeerVerdict(
        accelerated=True,
        bytes_per_s=rate,
        is_lower_bound=is_lower_bound,
        memory_bytes_per_s=rate * ratio,
        text="\n".join(lines),
    )


def _rate(found: PeerCheck) -> tuple[float, bool, str]:
    """The rate that the link carries, whether it may be more, and how that is said."""
    measured, forecast = found.measured, found.forecast
    limit = found.limit_bytes_per_s
    if measured is None or (found.running and measured.held_to_bytes_per_s):
        if forecast is None:
            return 0.0, False, "; how fast was not measured"
        rate = min(forecast.next_minute[1], limit or forecast.next_minute[1])
        return rate, False, f", at about {format_rate(rate)} on the wire, as earlier migrations there"
    rate = measured.bytes_per_s
    if limit and rate >= LIMIT_REACHED * limit:
        return min(rate, limit), False, f", held to {format_rate(limit)} by link_bytes_per_s_max"
    is_lower_bound = measured.is_bound_here or measured.is_bound_there
    return rate, is_lower_bound, f", at {'at least' if is_lower_bound else 'about'} {format_rate(rate)} on the wire"


LIMIT_REACHED: Final = 0.8
"""Share of a limit from which on it, and not the link, held the measurement up."""


def _named_reason(check: str, found: PeerCheck) -> str:
    if check == "own-agent":
        return found.own_refusal
    if check == "accepts" and found.examined is not None:
        return found.examined.refuses
    return found.peer.code or "unreachable"


def _name(found: PeerCheck) -> Check:
    """Judge whether a migration to the peer's name goes to an address that is caught."""
    peer = found.peer
    listed = {normalise_address(address) for address in peer.addresses}
    missed = sorted({normalise_address(address) for address in found.resolved} - listed)
    resolved = f"{peer.name} resolves to {', '.join(found.resolved)}"
    if found.resolve_error:
        resolved = f"{peer.name} does not resolve here ({found.resolve_error})"
    what = f"{resolved}; configured are {', '.join(peer.addresses)}"
    return advised_check(
        "name",
        hold=not missed and not found.resolve_error,
        what=what,
        why="libvirt migrates to what the destination's name resolves to here; only configured addresses are caught",
        remedy=f"add {', '.join(missed)} to the addresses of {peer.name} in [[peers]], then dwcp-migrate reload"
        if missed
        else f"let {peer.name} resolve on this host (getent ahosts {peer.name}), or migrate by address",
    )


def _redirect(found: PeerCheck) -> Check:
    redirect, peer = found.redirect, found.peer
    if redirect.wanted and redirect.armed and peer.name in redirect.left_alone:
        what = f"is not redirected: migrations to {peer.name} are left to QEMU alone, which is faster"
        return required_check(
            "redirect", hold=True, what=what, why="a relay costs what QEMU by itself does not spend", remedy=""
        )
    missed = [address for address in peer.addresses if address not in found.redirected]
    what = f"catches migrations to {', '.join(found.redirected)} (ports {redirect.port_min} to {redirect.port_max})"
    remedy = "dwcp-migrate doctor says what keeps it from being armed"
    if not redirect.wanted:
        what = "the redirect is off"
        remedy = "set intercept.redirect = true, or uncordon this host; --migrateuri works without"
    elif not redirect.armed:
        what = f"the redirect is not armed: {redirect.error or 'the kernel holds no such rules'}"
    elif peer.not_redirected:
        what = f"no address to redirect: {peer.not_redirected}"
        remedy = "list IP addresses in [[peers]], or names that resolve on this host"
    elif missed:
        what = f"does not catch migrations to {', '.join(missed)}"
        remedy = "dwcp-migrate reload; dwcp-migrate doctor says whether another peer has that address too"
    return required_check(
        "redirect",
        hold=redirect.wanted and redirect.armed and not missed and not peer.not_redirected,
        what=what,
        why="the redirect is how a plain virsh migrate reaches the agent",
        remedy=remedy,
    )


def _own_agent(found: PeerCheck) -> Check:
    return required_check(
        "own-agent",
        hold=not found.own_refusal,
        what=found.own_refusal_why or f"{found.own_name}, version {found.own_version}, {found.own_state}",
        why="this host itself would let a migration pass by unaccelerated",
        remedy=OWN_REMEDIES.get(found.own_refusal, "dwcp-migrate doctor says more"),
    )


def _own_certificates(found: PeerCheck, now: float) -> Iterator[Check]:
    for one in found.own_certificates:
        left_s = one.not_after - now
        bad = one.error or ("expired" if left_s <= 0 else "not valid yet" if now < one.not_before else "")
        if bad:
            yield required_check(
                f"own-certificate:{one.use}",
                hold=False,
                what=f"{one.path}: {bad}",
                why="agents prove to each other who they are with it",
                remedy="issue a new one (dwcp-migrate cert issue) and put it in place: the next migration reads it",
            )


def _fleet(found: PeerCheck) -> Iterator[Check]:
    """Judge whether the fleet's shared state can be asked, where there is one."""
    if not found.fleet:
        return
    lost = found.fleet == "stopped"
    lost_verdict: Verdict = "fail" if found.is_agreement_required else "warn"
    yield Check(
        id="fleet",
        verdict=lost_verdict if lost else "ok",
        what=f"the fleet's state cannot be asked: {found.fleet_error}" if lost else "the fleet's state can be asked",
        why="migrations are agreed on there; without it they are refused where agreement is required, else go point to"
        " point and say so",
        remedy="dwcp-migrate cluster status says which voters are missing" if lost else "",
    )


def _agent(found: PeerCheck) -> Check:
    peer = found.peer
    where = f"{peer.name} (port {peer.port})"
    answers = f"{where} answers in {peer.rtt_s * 1000:.1f} ms"
    return required_check(
        "agent",
        hold=peer.reachable,
        what=answers if peer.reachable else peer.error or f"{where}: {peer.code}",
        why="migrations to a host whose agent does not answer with a good certificate run unaccelerated",
        remedy=peer.hint or f"is its agent running, and does its firewall let port {peer.port} in?",
    )


def _addresses(found: PeerCheck) -> Iterator[Check]:
    """Judge the link port on every address and path."""
    peer = found.peer
    for address in dict.fromkeys([*peer.addresses, *peer.link_addresses]):
        error = peer.silent.get(address, "")
        yield advised_check(
            f"address:{address}",
            hold=not error,
            what=error or f"the link port answers at {address}",
            why="a migration that dials an address with a silent link port waits for another one to answer",
            remedy=f"let port {peer.port} of {address} in at {peer.name}, or take it out of [[peers]]",
        )


def _versions(found: PeerCheck) -> Check:
    peer = found.peer
    return advised_check(
        "versions",
        hold=peer.version == found.own_version,
        what=f"{found.own_version} here, {peer.version} there, protocol {peer.protocol}",
        why="what only the newer one can do is left out between the two",
        remedy="upgrade the older of the two agents",
    )


def _clock(found: PeerCheck) -> Check:
    ahead = found.peer.clock_ahead_s
    way = "ahead of" if ahead > 0 else "behind"
    return advised_check(
        "clock",
        hold=abs(ahead) <= CLOCK_DIFFERENCE_S_MAX,
        what=f"its clock is {abs(ahead):.1f} s {way} this host's",
        why="certificates and the fleet's tickets are judged by the clock of whoever reads them",
        remedy="run an NTP client on both hosts",
    )


def _names(found: PeerCheck) -> Check:
    """Judge whether both hosts are called the same on both."""
    peer = found.peer
    wrong = []
    if peer.calls_itself and not same_name(peer.calls_itself, peer.name):
        wrong.append((f"it calls itself {peer.calls_itself}", f'set name = "{peer.name}" in its configuration'))
    if peer.calls_us and not same_name(peer.calls_us, found.own_name):
        remedy = f'set name = "{peer.calls_us}" in this host\'s configuration'
        wrong.append((f"it calls this host {peer.calls_us}, not {found.own_name}", remedy))
    proven = f"its certificate proves {peer.name}"
    return advised_check(
        "names",
        hold=not wrong,
        what="; ".join([proven, *(what for what, _ in wrong)]),
        why="the fleet's tickets and certificates name hosts: both ends have to mean the same",
        remedy="; ".join(remedy for _, remedy in wrong),
    )


def _examined(found: PeerCheck, there: Examined, now: float) -> Iterator[Check]:
    refusal = explain_code(UNACCELERATED, there.refuses)
    yield required_check(
        "accepts",
        hold=not there.refuses,
        what=refusal.text if there.refuses else f"takes migrations, {there.sessions} of {there.sessions_max} run",
        why="what the peer refuses runs unaccelerated",
        remedy=refusal.remedy or "wait until it is through, then check again",
    )
    foreign = [address for address in found.redirected if address not in there.own_addresses]
    yield required_check(
        "own-addresses",
        hold=not foreign,
        what=f"{', '.join(foreign)} is not the peer's" if foreign else f"{', '.join(there.own_addresses)} are its own",
        why="the destination's agent dials its own addresses only",
        remedy=f"correct the addresses of {found.peer.name} in [[peers]]",
    )
    yield _hook(there)
    left_s = there.certificate_until - now
    if there.certificate_until:
        yield advised_check(
            "certificate",
            hold=left_s >= EXPIRY_WARNING_S,
            what=f"its certificate names {', '.join(there.certificate_names)}, for {max(0.0, left_s) / DAY_S:.0f} days",
            why="once it has expired migrations to this peer run unaccelerated",
            remedy="issue a new one there (dwcp-migrate cert renew)",
        )
    yield _ports(found, there)


def _hook(there: Examined) -> Check:
    """Judge the hook's round trip: without it libvirt itself is asked, where the agent is connected to it."""
    hook = there.hook
    instead = f"libvirt {there.libvirt} is asked instead" if there.libvirt else "and no libvirtd can be asked instead"
    called = "" if hook.last_at else "; libvirt has not called it since the agent began"
    what = f"said to the agent in {hook.round_trip_s * 1000:.0f} ms what libvirt would tell it{called}"
    is_ok = not hook.problem
    lost = there.needs_announcement and not there.libvirt
    verdict: Verdict = "ok" if is_ok else "fail" if lost else "warn"
    return Check(
        id="hook",
        verdict=verdict,
        what=what if is_ok else f"the peer's libvirt hook: {hook.problem}; {instead}",
        why="an agent takes only migrations that its libvirt announced",
        remedy=""
        if is_ok
        else "install the hook there with mode 0755 and reload libvirtd; dwcp-migrate doctor there says more",
    )


def _ports(found: PeerCheck, there: Examined) -> Check:
    here = (found.redirect.port_min or PORT_MIN, found.redirect.port_max or PORT_MAX)
    covered = here[0] <= there.port_min and there.port_max <= here[1]
    return advised_check(
        "ports",
        hold=covered,
        what=f"it takes migrations at {there.port_min} to {there.port_max}, here {here[0]} to {here[1]} are redirected",
        why="a migration to a port outside of the redirected range never reaches the agent",
        remedy="set intercept.port_min and port_max alike on both hosts, as in their qemu.conf",
    )


def _link(found: PeerCheck) -> Check:
    measured = found.measured
    why = "migrations share this link"
    if measured is None:
        return Check(
            id="link",
            verdict="warn",
            what=f"not measured: {found.measure_error}",
            why=why,
            remedy=found.measure_hint or "check again",
        )
    over = f"over {output.counted(measured.channels, 'channel', 'channels')}"
    amount = f"{format_bytes(measured.bytes)} in {measured.seconds:.1f} s {over}"
    what = f"{format_rate(measured.bytes_per_s)}, {amount}"
    if found.running and measured.held_to_bytes_per_s:
        held = f"held to {format_rate(measured.held_to_bytes_per_s)} beside {found.running} running on the two hosts"
        what = f"carries bytes ({amount}, {held})"
    elif found.limit_bytes_per_s:
        what = f"{what}, held to {format_rate(found.limit_bytes_per_s)} by link_bytes_per_s_max"
    elif busy := _busy(measured):
        what = f"at least {what}: {busy} was busy, the link may carry more"
    missing = measured.channels < measured.channels_wanted
    if missing or measured.error:
        what = f"{what}; {measured.channels} of {measured.channels_wanted} channels came up: {measured.error}"
    return advised_check(
        "link",
        hold=not missing and not measured.error,
        what=what,
        why=why,
        remedy="does a firewall count or inspect connections to the link port?",
    )


def _busy(measured: LinkMeasured) -> str:
    if measured.is_bound_here:
        return "this host's agent"
    return "the peer's agent" if measured.is_bound_there else ""
