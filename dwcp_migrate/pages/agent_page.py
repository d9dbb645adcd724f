"""The agent's page: this host, what migrates, its peers, and how the last migrations ended.

The rule: it is a function of the status that the metrics are made of, and of the history's newest records. It has no
script; what changes is seen because the browser loads the page again, unless the reader holds it still.
"""

from typing import Final

from dwcp_migrate.api import words
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import AgentStatus, CertificateExpiry
from dwcp_migrate.pages.document import page_of, section_of, tiles_of
from dwcp_migrate.pages.markup import Child, Markup, join_markup, make_element, pairs_of, table_of
from dwcp_migrate.units import count_nouns, format_bytes, format_rate

REFRESH_S: Final = 5
HISTORY_SHOWN_MAX: Final = 20
RUNNING_SHOWN_MAX: Final = 64
PEERS_SHOWN_MAX: Final = 200
"""More peers are counted only: a page of thousands helps nobody, and costs the agent's time."""

CERTIFICATE_S_MIN: Final = 30 * 86400.0
"""A certificate that is good for less is named."""

HISTORY_HEADER: Final = ("Ended", "Domain", "Peer", "Result", "Time", "Downtime", "Ratio", "Note")
PEER_HEADER: Final = ("Peer", "Agent", "Link, next minute", "Addresses caught")


def status_page(status: AgentStatus, recent: list[Migration], *, is_held: bool) -> str:
    """Make the page.

    Args:
        status: of the agent.
        recent: migrations that ended, the newest first.
        is_held: it does not load itself again.
    """
    refresh = None if is_held else make_element("meta", http_equiv="refresh", content=str(REFRESH_S))
    return page_of(
        f"{status.name}: migrations",
        [*_head(status, is_held=is_held), _faults(status), _running(status), _fleet(status), _history(recent)],
        f"dwcp-migrate {status.version}, pid {status.pid}, as of {words.say_moment(status.now)}.",
        head=[refresh],
    )


def _head(status: AgentStatus, *, is_held: bool) -> list[Child]:
    kind = "good" if status.state == "running" and not status.disabled else "warn"
    badge = make_element("span", "disabled" if status.disabled else status.state, class_=f"badge {kind}")
    turn = ("./", "Update by itself") if is_held else ("?hold", "Hold still")
    ways = (turn, ("metrics", "Metrics"), ("healthz", "Health"))
    done = {
        result: sum(count for key, count in status.totals.migrations.items() if key.endswith(f" {result}"))
        for result in ("completed", "failed")
    }
    passed = sum(status.totals.passthrough.values())
    return [
        make_element("h1", status.name, badge),
        make_element("p", _since(status), class_="soft"),
        make_element("nav", *(make_element("a", name, href=where) for where, name in ways), aria_label="Page"),
        tiles_of(
            [
                (str(len(status.migrations)), "under way"),
                (format_rate(sum(one.raw_bytes_per_s for one in status.migrations)), "guest memory"),
                (format_rate(sum(one.wire_bytes_per_s for one in status.migrations)), "on the wire"),
                (f"{done['completed']:,}", f"completed, {done['failed']:,} failed, {passed:,} unaccelerated"),
                (_memory(status), "memory granted"),
            ]
        ),
    ]


def _since(status: AgentStatus) -> str:
    caught = sum(rule.packets for rule in status.intercept.rules)
    redirect = f"redirect armed, {count_nouns(caught, 'connection', 'connections')} caught"
    up = f"up {words.say_duration(status.now - status.started_at)}"
    return f"{up}, {redirect if status.intercept.armed else 'no redirect'}"


def _memory(status: AgentStatus) -> str:
    use = status.memory
    return f"{100 * use.granted_bytes / use.budget_bytes:.0f} %" if use.budget_bytes else words.UNKNOWN


def _faults(status: AgentStatus) -> Markup | None:
    found = look_at(status)
    if not found:
        return None
    said = join_markup(["On this host, ", make_element("code", "dwcp-migrate doctor"), " says why and what to do."])
    return section_of(
        "Look at", said, make_element("ul", *(make_element("li", one) for one in found)), identity="faults"
    )


def look_at(status: AgentStatus) -> list[str]:
    """Say what is not as it should be, one sentence each."""
    silent = sorted(name for name, is_up in status.peers_up.items() if not is_up)
    shown = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")  # noqa: PLR2004
    configuration, intercept, libvirt = status.configuration, status.intercept, status.libvirt
    judged = (
        (status.disabled, status.disabled),
        (intercept.wanted and not intercept.armed, f"the redirect is not armed: {intercept.error}"),
        (libvirt.uri and not libvirt.connected, f"libvirt is not connected: {libvirt.error}"),
        (configuration.error, f"the last reload was refused: {configuration.error}"),
        (configuration.pending_restart, f"wait for a restart: {', '.join(configuration.pending_restart)}"),
        (silent, f"no answer of {shown}"),
        (status.coordination.error, f"the fleet's state: {status.coordination.error}"),
        (status.faults, f"unforeseen faults, see the log: {', '.join(sorted(status.faults))}"),
    )
    certificates = [_expiry(one, status.now) for one in status.certificates]
    return [sentence for applies, sentence in judged if applies] + [one for one in certificates if one]


def _expiry(certificate: CertificateExpiry, now: float) -> str:
    if certificate.error:
        return f"{certificate.path}: {certificate.error}"
    left = certificate.not_after - now
    if left >= CERTIFICATE_S_MIN:
        return ""
    return f"{certificate.path} " + (f"is good for {words.say_duration(left)} only" if left > 0 else "has expired")


def _running(status: AgentStatus) -> Markup:
    shown = status.migrations[:RUNNING_SHOWN_MAX]
    more = len(status.migrations) - len(shown)
    said = "" if shown else "Nothing migrates."
    rest = make_element("p", f"and {more} more", class_="soft") if more else None
    cards = (_card(one, status.now) for one in shown)
    return section_of("Under way", said, *cards, rest, identity="running")


def _card(migration: Migration, now: float) -> Markup:
    done = words.measure_progress(migration)
    kind = "bad" if migration.state == "waiting" else "warn" if migration.passthrough_reason else "good"
    reason = f" ({migration.passthrough_reason})" if migration.passthrough_reason else ""
    disk = "disk of " if migration.kind == "disk" else ""
    held = migration.counters.held_up_s
    fill = make_element("u", style=f"left:0;width:{100 * (done or 0.0):.1f}%;background:currentColor")
    told = f"{words.say_domain(migration)}: {words.say_percent(done)}"
    return make_element(
        "article",
        make_element(
            "h3",
            f"{disk}{words.say_domain(migration)} {words.say_peer(migration)}",
            make_element("span", f"{migration.state}{reason}", class_=f"badge {kind}"),
        ),
        make_element("div", fill, class_=f"track {kind}", role="img", aria_label=told),
        pairs_of(
            [
                ("Done", words.progress_text(migration)),
                ("Left", words.say_eta(migration)),
                ("Guest memory", _rate(migration.raw_bytes_per_s)),
                ("On the wire", _rate(migration.wire_bytes_per_s)),
                ("Held to", _rate(migration.granted_bytes_per_s)),
                ("Ratio", None if migration.passthrough_reason else words.say_ratio(migration)),
                ("Crossed", format_bytes(migration.counters.wire_bytes)),
                ("For", words.say_duration(migration.duration_s(now))),
                ("Waits for", max(held, key=lambda stage: held[stage]) if held else None),
            ]
        ),
    )


def _rate(bytes_per_s: float) -> str | None:
    return format_rate(bytes_per_s) if bytes_per_s > 0 else None


def _fleet(status: AgentStatus) -> Markup:
    links = {link.peer: link.next_minute for link in status.links}
    caught: dict[str, int] = {}
    for rule in status.intercept.rules:
        caught[rule.peer] = caught.get(rule.peer, 0) + 1
    names = sorted({*status.peers_up, *caught, *links})
    rows = [
        (name, _answer(status.peers_up.get(name)), _forecast(links.get(name)), str(caught.get(name, 0)))
        for name in names[:PEERS_SHOWN_MAX]
    ]
    more = len(names) - len(rows)
    rest = make_element("p", f"and {more} more", class_="soft") if more else None
    table = table_of(PEER_HEADER, rows, numbers=(3,), label="Peers") if rows else None
    return section_of("Fleet", _agreement(status) if rows else "There is no peer.", table, rest, identity="fleet")


def _agreement(status: AgentStatus) -> str:
    engine = status.coordination
    if not engine.members:
        return ""
    led = f"led by {engine.leader}" if engine.leader else "without a leader"
    hosts = count_nouns(len(engine.members), "member", "members")
    return f"{engine.engine}: this host is {engine.state}, {hosts}, {led}"


def _answer(is_up: bool | None) -> Markup:  # noqa: FBT001 - a value that is shown
    if is_up is None:
        return make_element("span", "not asked yet", class_="soft")
    return make_element("span", "answers" if is_up else "does not answer", class_="good" if is_up else "bad")


def _forecast(quantiles: tuple[float, float, float] | None) -> str:
    if quantiles is None:
        return words.UNKNOWN
    low, median, high = quantiles
    return f"{format_rate(median)} ({format_rate(low)} to {format_rate(high)})"


def _history(recent: list[Migration]) -> Markup:
    rows = [_ended(one) for one in recent[:HISTORY_SHOWN_MAX]]
    said = f"The last {len(rows)} migrations." if rows else "None has ended yet."
    table = table_of(HISTORY_HEADER, rows, numbers=(4, 5, 6), label="History") if rows else None
    return section_of("History", said, table, identity="history")


def _ended(migration: Migration) -> tuple[Child, ...]:
    unaccelerated = f"unaccelerated: {migration.passthrough_reason}" if migration.passthrough_reason else ""
    return (
        words.say_moment(migration.ended_at),
        words.say_domain(migration),
        words.say_peer(migration),
        make_element("span", migration.result, class_="good" if migration.result == "completed" else "bad"),
        words.say_duration(migration.duration_s(migration.ended_at)),
        words.say_milliseconds(migration.downtime_ms),
        words.say_ratio(migration),
        unaccelerated or migration.reason,
    )
