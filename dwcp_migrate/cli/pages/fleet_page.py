"""The report of a fleet as a page: what was saved, how good the predictions were, what failed and why."""

from typing import Final

from dwcp_migrate.api.recap import FleetRecap, sum_recaps
from dwcp_migrate.cli.pages import charts
from dwcp_migrate.cli.support import output
from dwcp_migrate.pages.document import page_of, section_of, tiles_of
from dwcp_migrate.pages.markup import Markup, make_element, table_of
from dwcp_migrate.protocol.recap import MigrationRecap
from dwcp_migrate.refusals import UNACCELERATED, explain_code
from dwcp_migrate.units import format_bytes

PREDICTED_SHARE: Final = 0.8
"""Of the migrations, that lie inside of their interval where predictions are what they say they are."""

HEADER: Final = ("Host", "Completed", "Accelerated", "Failed", "Memory", "Wire", "Ratio", "Saved", "Predicted")


def fleet_page(found: FleetRecap, by: str) -> str:
    """Make the page.

    Args:
        found: the sums.
        by: which agent was asked, and its version.
    """
    total = sum_recaps(found.hosts.values())
    silent = [make_element("li", f"{name}: {why}") for name, why in sorted(found.silent.items())]
    sections = [
        make_element("h1", "Migrations of the fleet"),
        make_element("p", period(found, total), class_="soft"),
        tiles_of(tiles(total)),
        section_of("Hosts", "", table_of(HEADER, host_rows(found), numbers=range(1, 9)), identity="hosts"),
        make_element("div", _failures(total), _unaccelerated(total), class_="pair"),
        _predictions(found, total),
        section_of("Hosts that did not tell", "", make_element("ul", *silent), identity="silent") if silent else None,
        section_of("How it is counted", COUNTED, identity="counted"),
    ]
    return page_of("Migrations of the fleet", sections, f"{by}, {output.moment(found.now)}.")


COUNTED: Final = (
    "Each migration of a guest's memory counts at its source. Bytes saved are those that QEMU sent less those on the "
    "wire. Time saved is what the same bytes would have taken at the best rate that the wire showed in that migration, "
    "less what it took: at least that, since the further passes of a plain migration are not counted. Migrations of "
    "older agents, whose records do not tell that rate, are left out of it."
)


def period(found: FleetRecap, total: MigrationRecap) -> str:
    """Say which time the sums are of.

    Args:
        found: the sums by host.
        total: of all hosts.
    """
    if not total.completed + total.failed:
        return (
            f"No migration ended since {output.moment(found.since)}." if found.since else "No migration has ended yet."
        )
    began = max(found.since, total.oldest_at)
    hosts = output.counted(len(found.hosts), "host", "hosts")
    return f"{hosts}, {output.moment(began)} to {output.moment(found.now)}"


def tiles(total: MigrationRecap) -> list[tuple[str, str]]:
    """The figures of a whole fleet, each with what it is of."""
    ratio = total.raw_bytes / total.wire_bytes if total.wire_bytes else 0.0
    less = max(0.0, total.observed_s - total.accelerated_s)
    watched = output.counted(total.observed, "observed migration", "observed migrations")
    observed = [(output.duration(less), f"would have been saved in {watched}")] if total.observed else []
    return [
        (f"{total.completed:,}", f"migrations completed, {total.failed:,} failed"),
        (share(total.accelerated, total.completed), "of them accelerated"),
        (output.size(max(0, total.raw_bytes - total.wire_bytes)), "not sent over the network"),
        (saved(total), "saved at least"),
        (f"{ratio:.1f}" if ratio else output.UNKNOWN, "bytes of memory for each on the wire"),
        (
            output.milliseconds(round(total.downtime_ms / total.downtimes)) if total.downtimes else output.UNKNOWN,
            "downtime on average",
        ),
        (share(total.inside, total.predicted), f"of {total.predicted:,} predictions held"),
        *observed,
    ]


def share(part: int, whole: int) -> str:
    """Say a share in whole percent; `-` of nothing.

    Args:
        part: of the whole.
        whole: all of it.
    """
    return output.percent(part / whole if whole else None)


def saved(one: MigrationRecap) -> str:
    """Say the time that was saved; `-` where no record tells."""
    return output.duration(one.saved_s) if one.saved_known else output.UNKNOWN


def host_rows(found: FleetRecap) -> list[tuple[str, ...]]:
    """One row a host, in the order of names."""
    return [
        (
            name,
            str(one.completed),
            str(one.accelerated),
            str(one.failed),
            format_bytes(one.raw_bytes),
            format_bytes(one.wire_bytes),
            f"{one.raw_bytes / one.wire_bytes:.1f}" if one.wire_bytes else output.UNKNOWN,
            saved(one),
            f"{one.inside} of {one.predicted}",
        )
        for name, one in sorted(found.hosts.items())
    ]


def _failures(total: MigrationRecap) -> Markup:
    rows = [(reason, float(count), str(count)) for reason, count in _largest(total.failures)]
    said = "" if rows else "None failed."
    return section_of("Failed, by reason", said, charts.bars(rows, 6) if rows else None, identity="failures")


def _unaccelerated(total: MigrationRecap) -> Markup:
    rows = [
        (f"{reason}: {explain_code(UNACCELERATED, reason).text}", float(count), str(count))
        for reason, count in _largest(total.unaccelerated)
    ]
    said = "" if rows else "None ran unaccelerated."
    return section_of(
        "Unaccelerated, by reason", said, charts.bars(rows, 4) if rows else None, identity="unaccelerated"
    )


def _largest(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _predictions(found: FleetRecap, total: MigrationRecap) -> Markup:
    if not total.predicted:
        return section_of("Predictions", "Nothing was predicted.", identity="predictions")
    rows = [
        (name, one.inside / one.predicted, f"{share(one.inside, one.predicted)} of {one.predicted}")
        for name, one in sorted(found.hosts.items())
        if one.predicted
    ]
    error = total.error / total.predicted
    said = (
        f"The interval of a time is to hold {output.percent(PREDICTED_SHARE)} of the migrations; "
        f"it held {share(total.inside, total.predicted)}. The median was off by {output.percent(error)} on average."
    )
    return section_of(
        "Predictions", said, charts.bars([*rows, ("as it should be", PREDICTED_SHARE, "80 %")]), identity="predictions"
    )
