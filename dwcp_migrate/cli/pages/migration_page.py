"""The report of one migration as a page: what it took, what held it up, what was predicted, what was decided."""

from typing import Final

from dwcp_migrate.api.course import STAGES
from dwcp_migrate.api.recap import OBSERVED
from dwcp_migrate.api.schema import AgentStatus, ExpectedMigration, Migration
from dwcp_migrate.cli.pages import charts
from dwcp_migrate.cli.pages.course_facts import passes_of, pause_of, phases_of, rates_of, waits_of
from dwcp_migrate.cli.pages.migration_tables import decisions_section, environment_section, figures_section
from dwcp_migrate.cli.support import output
from dwcp_migrate.pages.document import page_of, section_of, tiles_of
from dwcp_migrate.pages.markup import Markup, make_element
from dwcp_migrate.refusals import UNACCELERATED, explain_code
from dwcp_migrate.units import KIB, PAGE_BYTES, format_bytes, format_rate

STATE_COLOURS: Final = {
    "opening": 7,
    "precopy": 0,
    "switchover": 1,
    "postcopy": 3,
    "waiting": 6,
    "passthrough": 4,
}

STAGE_WORDS: Final = {
    "qemu": "QEMU: it had nothing to send",
    "reader": "reading from QEMU",
    "classifier": "comparing pages",
    "compressors": "compressing",
    "encryption": "encrypting",
    "link": "the link",
    "destination": "the destination",
    "cores": "no free core",
}

PAGE_WORDS: Final = {
    "zero": "zero",
    "duplicate": "equal to another page of the guest",
    "same": "as it was sent before",
    "delta": "changed in parts: sent as a difference",
    "new": "new: sent compressed",
    "known": "known at the destination",
}

NO_COURSE: Final = "This record has no course: it ran unaccelerated, was too short, or an older agent wrote it."


def migration_page(migration: Migration, status: AgentStatus, now: float) -> str:
    """Make the page.

    Args:
        migration: its record.
        status: of the agent that has it.
        now: seconds since the epoch.
    """
    name = output.domain(migration)
    sections = [
        *_head(migration, status, now),
        _timeline(migration, now),
        _rates(migration, now),
        _waits(migration),
        make_element("div", _pages(migration), _channels(migration), class_="pair"),
        make_element("div", _predicted(migration), _pause(migration), class_="pair"),
        decisions_section(migration),
        environment_section(migration, status),
        figures_section(migration),
    ]
    footer = f"dwcp-migrate {status.version} on {status.name}, {output.moment(now)}. This file makes no requests."
    return page_of(f"Migration of {name}", sections, footer)


def _head(migration: Migration, status: AgentStatus, now: float) -> list[Markup]:
    ends = (status.name, migration.peer or migration.address)
    source, destination = ends if migration.role == "source" else reversed(ends)
    state = migration.result or migration.state
    kind = {"completed": "good", "failed": "bad"}.get(state, "warn")
    seconds = migration.duration_s(now)
    counters = migration.counters
    tiles = [
        (output.duration(seconds), "time"),
        (output.milliseconds(migration.downtime_ms), "downtime, as libvirt measured it"),
        (format_bytes(counters.raw_bytes), "taken from QEMU"),
        (format_bytes(counters.wire_bytes), "on the wire"),
        (output.ratio(migration), "bytes of memory for each on the wire"),
        (format_rate(counters.raw_bytes / seconds) if seconds else output.UNKNOWN, "of memory, on average"),
    ]
    why = migration.passthrough_reason
    trouble = [
        make_element("p", f"It failed: {migration.reason}", class_="bad") if migration.reason else None,
        make_element("p", f"It ran unaccelerated ({why}): {explain_code(UNACCELERATED, why).text}", class_="warn")
        if why
        else None,
    ]
    return [
        make_element(
            "h1", f"Migration of {output.domain(migration)}", make_element("span", state, class_=f"badge {kind}")
        ),
        make_element("p", f"{source} to {destination}, {output.moment(migration.started_at)}", class_="soft"),
        *(one for one in trouble if one is not None),
        tiles_of(tiles),
    ]


def _timeline(migration: Migration, now: float) -> Markup:
    phases = [(state, seconds) for state, seconds in phases_of(migration, now) if seconds > 0]
    spans = [
        charts.Span(state, STATE_COLOURS.get(state, 7), seconds, f"{state} {output.duration(seconds)}")
        for state, seconds in phases
    ]
    names = {span.name: span.colour for span in spans}
    words = ", ".join(span.words for span in spans)
    passes = f"; {output.counted(migration.iteration, 'pass', 'passes')} over memory" if migration.iteration else ""
    return section_of(
        "Phases", f"{words}{passes}", charts.strip(spans, words), charts.legend(names.items()), identity="phases"
    )


def _rates(migration: Migration, now: float) -> Markup:
    steps = rates_of(migration.course)
    if not steps:
        return section_of("Rates", NO_COURSE, identity="rates")
    end = migration.duration_s(now)
    series = [
        charts.Curve("memory taken from QEMU", 0, [(step.at_s, step.raw) for step in steps]),
        charts.Curve("on the wire", 1, [(step.at_s, step.wire) for step in steps]),
    ]
    dirty = [(point.at_s, float(point.dirty_bytes_per_s)) for point in migration.course if point.dirty_bytes_per_s > 0]
    if dirty:
        series.append(charts.Curve("written by the guest", 2, dirty, is_dashed=True))
    picture = charts.curves(
        series,
        end,
        scale=charts.Scale(format_rate, 1 / 8),
        label="Rates over time",
        marks=passes_of(migration),
    )
    remaining = [(point.at_s, float(point.remaining_bytes)) for point in migration.course if point.remaining_bytes >= 0]
    left: list[Markup] = []
    if any(size for _, size in remaining):
        curve = charts.Curve("memory that remains", 3, remaining)
        left = [
            make_element("p", "Memory that remained, as libvirt said:", class_="soft"),
            charts.curves(
                [curve],
                end,
                scale=charts.Scale(format_bytes, _binary_unit(remaining)),
                label="Memory that remained",
                height=110,
            ),
        ]
    legend = charts.legend((curve.name, curve.colour) for curve in series)
    return section_of("Rates", "", legend, picture, *left, identity="rates")


def _binary_unit(points: list[tuple[float, float]]) -> float:
    """The largest of KiB, MiB and so on that is no more than the largest value."""
    largest, unit = max(value for _, value in points), 1.0
    while unit * KIB <= largest:
        unit *= KIB
    return unit


def _waits(migration: Migration) -> Markup:
    edges, shares = waits_of(migration.course)
    if not shares:
        return section_of("What held it up", NO_COURSE, identity="waits")
    found = [
        charts.Layer(STAGE_WORDS[stage], number, shares[stage])
        for number, stage in enumerate(STAGES)
        if stage in shares
    ]
    total = sorted(migration.counters.held_up_s.items(), key=lambda item: -item[1])
    said = "In all: " + ", ".join(f"{stage} {output.duration(seconds)}" for stage, seconds in total if seconds > 0)
    picture = charts.layers(edges, found, label="Share of the time by the stage waited for")
    return section_of(
        "What held it up", said, charts.legend((one.name, one.colour) for one in found), picture, identity="waits"
    )


def _pages(migration: Migration) -> Markup:
    pages = {kind: count for kind, count in migration.counters.pages.items() if count}
    if not pages:
        return section_of("Pages", "No pages were told apart.", identity="pages")
    total = sum(pages.values())
    rows = [
        (PAGE_WORDS.get(kind, kind), float(count), f"{100 * count / total:.0f} %, {format_bytes(count * PAGE_BYTES)}")
        for kind, count in sorted(pages.items(), key=lambda item: -item[1])
    ]
    kept = total - pages.get("new", 0) - pages.get("delta", 0)
    said = (
        f"{100 * kept / total:.0f} % of {total:,} pages crossed as a word of a few bytes. Kinds share compressed "
        "segments, so that their bytes on the wire are not told apart."
    )
    return section_of("Pages by kind", said, charts.bars(rows), identity="pages")


def _channels(migration: Migration) -> Markup:
    carried = [count for count in migration.counters.channel_bytes if count]
    seconds = migration.duration_s(migration.ended_at)
    if not carried or not seconds:
        return section_of("Channels", "What each channel carried is not in this record.", identity="channels")
    most = max(point.channels for point in migration.course) if migration.course else len(carried)
    shown = sorted(carried, reverse=True)[:CHANNELS_SHOWN]
    rows = [
        (f"channel {number}", float(count), f"{format_rate(count / seconds)}, {format_bytes(count)}")
        for number, count in enumerate(shown, 1)
    ]
    rest = carried and len(carried) - len(shown)
    more = f"; {rest} that carried less are left out" if rest else ""
    return section_of(
        "Channels",
        f"{len(carried)} carried bytes, {most} at once, all to {migration.peer or migration.address}{more}.",
        charts.bars(rows, 5),
        identity="channels",
    )


CHANNELS_SHOWN: Final = 16


def _predicted(migration: Migration) -> Markup:
    expected = migration.expected
    if expected is not None and migration.passthrough_reason == OBSERVED:
        return _observed(migration, expected)
    if expected is None or migration.result != "completed":
        said = (
            "It did not complete." if migration.result == "failed" else "Nothing was predicted: too little was known."
        )
        return section_of("Predicted and actual", said, identity="predicted")
    seconds = migration.duration_s(migration.ended_at)
    rows: list[tuple[str, tuple[float, float, float], float, charts.Say]] = [
        ("time", expected.time_s, seconds, output.duration)
    ]
    if migration.downtime_ms >= 0:
        rows.append(("downtime", expected.downtime_s, migration.downtime_ms / 1000, _pause_words))
    rows.append(("wire", expected.wire_bytes, float(migration.counters.wire_bytes), format_bytes))
    drawn = [
        (name, quantiles, actual, f"{say(actual)}, predicted {say(quantiles[1])}")
        for name, quantiles, actual, say in rows
    ]
    low, _, high = expected.time_s
    inside = "inside" if low <= seconds <= high else "outside"
    said = f"The time lies {inside} of the interval that holds eight cases of ten; the band is the interval."
    return section_of(
        "Predicted and actual",
        said,
        charts.legend([("predicted", 0), ("came", 1)]),
        charts.intervals(drawn),
        identity="predicted",
    )


def _observed(migration: Migration, expected: ExpectedMigration) -> Markup:
    took = migration.duration_s(migration.ended_at)
    low, median, high = expected.time_s
    row = ("time", expected.time_s, took, f"{output.duration(took)}, accelerated {output.duration(median)}")
    said = (
        f"It was only observed. Accelerated it would have taken {output.duration(median)}, in eight cases of ten "
        f"{output.duration(low)} to {output.duration(high)}."
    )
    names = charts.legend([("accelerated", 0), ("as it ran", 1)])
    return section_of("Observed", said, names, charts.intervals([row]), identity="predicted")


def _pause_words(seconds: float) -> str:
    return output.milliseconds(round(seconds * 1000))


def _pause(migration: Migration) -> Markup:
    steps = pause_of(migration)
    measured = f"libvirt measured {output.milliseconds(migration.downtime_ms)}. " if migration.downtime_ms >= 0 else ""
    if not steps:
        said = f"{measured}Its parts are not in this record: only the source hears when the guest is paused."
        return section_of("Downtime", said, identity="downtime")
    spans = [
        charts.Span(step.name, number, step.seconds, f"{step.name}: {_pause_words(step.seconds)}")
        for number, step in enumerate(steps)
    ]
    said = f"{measured}As this host saw it, from libvirt's pause to its word:"
    rows = [(step.name, step.seconds, _pause_words(step.seconds)) for step in steps]
    return section_of(
        "Downtime", said, charts.strip(spans, "Parts of the downtime"), charts.bars(rows, step=1), identity="downtime"
    )
