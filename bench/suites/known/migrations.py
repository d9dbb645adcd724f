"""Migrations of the suite `known` in the lab, over 200 Mbit/s and 40 ms (root).

Cases `known/<guest>/<case>`, each beside `cold` in one run; the guest changes its memory all the time.

    cold      agents without a store
    first     a store at both hosts, empty: nothing is there yet
    return    the way back, after what was sent was put away
    retry     a migration that was cancelled after most of it, and the next one
    nothing   a store full of another guest's pages at the destination, for a guest that shares none

Bytes are what passed the WAN, headers included, and the agents' channels (`channel_bytes`); CPU is the source's data
process; what a child puts away after a migration is not in it, see docs/known-pages.md.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from bench.frame import Options, Row
from bench.suites.known.simulated import STORED_PAGES, simulated
from bench.suites.known.stream import stream_rows
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.hosts.agents import give
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.shuttle import Shuttle, Watch, newest_record
from dwcp_migrate.lab.wan import WanLink
from dwcp_migrate.store.digests import DOMAIN_SCOPE
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.store.writer import StoreFiller
from dwcp_migrate.units import GIB, MIB, PAGE_BYTES

LINK: Final = WanLink(rate_bytes_per_s=25e6, delay_s=0.020)
"""200 Mbit/s, 40 ms there and back."""
STORE: Final[dict[str, Any]] = {"store": {"bytes_max": GIB}}
CANCEL_SHARE: Final = 0.8
"""Of the first try's memory that had left when it is cancelled."""
KEPT: Final = "pages kept of a migration"
"""What an agent's log says of a host that has put pages away."""
CHECK_S_MAX: Final = 600.0
"""For two passes over all of the guest's memory, by itself, in the end."""
SETTLE_S_MAX: Final = 90.0
"""Seconds until the pages that were sent are stored."""


class Passage(NamedTuple):
    """A migration as it is measured."""

    wire_bytes: float
    channel_bytes: float
    time_s: float
    cpu_s_per_gb: float
    known_share: float
    missed: float


def rows(options: Options) -> list[Row]:
    """Run the cases.

    Raises:
        LabError: not root, the lab does not come up, or a guest's memory is not what it was.
    """
    found: list[Row] = []
    if "simulated".startswith(options.only):
        found += simulated(STORED_PAGES // 64 if options.quick else STORED_PAGES)
    if "stream".startswith(options.only):
        found += stream_rows((16 if options.quick else 128) * MIB)
    guests: tuple[GuestOptions, ...] = (
        GuestOptions(name="pages", memory_mib=256, fill_mib=160, dirty_pages_per_s=100),
        GuestOptions(name="programs", memory_mib=512, fill_mib=200, dirty_pages_per_s=20, workload="programs"),
    )
    for guest in guests[:1] if options.quick else guests:
        if guest.name.startswith(options.only):
            found += _guest(guest, options.seed)
    return found


def _guest(guest: GuestOptions, seed: int) -> list[Row]:
    with Lab.up(LabOptions(name=f"known-{seed}", link=LINK, seed=seed, owned=True)) as lab:
        measured: dict[str, Passage] = {}
        shuttle = Shuttle(lab, LabGuest(guest))
        _agents(lab, {})
        shuttle.guest.start(lab.hypervisors[0])
        shuttle.guest.wait_report(lab.hypervisors[0])
        measured["cold"] = _move(shuttle)
        _move(shuttle)
        _other_pages(shuttle)
        measured["nothing"] = _move(shuttle)
        _wipe(lab)
        measured["first"] = _move(shuttle)
        measured["return"] = _move(shuttle)
        _wipe(lab)
        measured["cancelled"] = _cancelled(shuttle)
        measured["retry"] = _move(shuttle)
        shuttle.guest.wait_healthy(shuttle.source, timeout_s=CHECK_S_MAX)
    return [row for case, passage in measured.items() for row in _rows(guest.name, case, passage, measured["cold"])]


def _agents(lab: Lab, changes: dict[str, Any]) -> None:
    lab.stop_agents()
    for host in lab.hypervisors[:2]:
        lab.start_agent(host.name, changes)


def _shelf(lab: Lab, number: int) -> Shelf:
    host = lab.hypervisors[number]
    return Shelf(host.run_directory / "store", GIB)


def _hand_over(lab: Lab, number: int) -> None:
    """Make a host's store its agent's own, which is not root."""
    host = lab.hypervisors[number]
    give(host, host.run_directory / "store")


def _wipe(lab: Lab) -> None:
    """Restart the agents with empty stores: a wipe gives a new secret."""
    _agents(lab, STORE)
    for number in (0, 1):
        _shelf(lab, number).wipe()
        _hand_over(lab, number)


def _other_pages(shuttle: Shuttle) -> None:
    """Fill both stores with pages that the guest never had, in its own scope."""
    lab = shuttle.lab
    _wipe(lab)
    uuid = shuttle.source.virsh("domuuid", shuttle.guest.name).stdout.strip()
    pages = np.random.default_rng(9).integers(1, 1 << 62, (60_000, PAGE_BYTES // 8), np.uint64)
    pages[:, 100:] = 5
    for number in (0, 1):
        StoreFiller(_shelf(lab, number), f"{DOMAIN_SCOPE}{uuid}", "sent").fill(pages, time.time())
        _hand_over(lab, number)


def _move(shuttle: Shuttle) -> Passage:
    """Migrate to the other host, and wait until both have stored the pages that they keep."""
    source, destination = shuttle.source, shuttle.destination
    began, wire, kept = time.time(), shuttle.lab.wan.wire_bytes(), _keepings(shuttle)
    outcome = shuttle.move()
    if not outcome.succeeded:
        raise LabError(outcome.said)
    wire = shuttle.lab.wan.wire_bytes() - wire
    record = newest_record(shuttle.lab.agents[source.name], "source", after=began)
    if record.passthrough_reason:
        raise LabError(f"it was not accelerated: {record.passthrough_reason}")
    _settle(shuttle, kept)
    counters = record.counters
    pages = sum(count for kind, count in counters.pages.items() if kind != "zero")
    print(f"known: {source.name} to {destination.name}: {outcome.time_s:.1f} s, {wire} bytes", file=sys.stderr)
    return Passage(
        wire,
        counters.wire_bytes,
        outcome.time_s,
        counters.cpu_s / max(counters.raw_bytes, 1) * 1e9,
        counters.pages.get("known", 0) / max(pages, 1),
        counters.missed_segments,
    )


def _cancelled(shuttle: Shuttle) -> Passage:
    """Begin a migration and cancel it once most of its memory has left."""
    source = shuttle.source
    memory_bytes = shuttle.guest.options.fill_mib * MIB
    wire = shuttle.lab.wan.wire_bytes()
    began, kept = time.time(), _keepings(shuttle)
    with Watch(shuttle.lab.agents[source.name]) as watch:
        move = shuttle.begin()
        watch.until(lambda record: record.counters.raw_bytes >= CANCEL_SHARE * memory_bytes)
        source.virsh("domjobabort", shuttle.guest.name)
    outcome = move.wait()
    if outcome.succeeded:
        raise LabError("it was over before it was cancelled")
    record = newest_record(shuttle.lab.agents[source.name], "source", after=began)
    _settle(shuttle, kept)
    counters = record.counters
    sent = shuttle.lab.wan.wire_bytes() - wire
    return Passage(sent, counters.wire_bytes, outcome.time_s, 0.0, 0.0, counters.missed_segments)


def _keepings(shuttle: Shuttle) -> int:
    """Count the migrations after which a host has put pages away, both hosts together."""
    logs = [agent.log.read_text() for agent in shuttle.lab.agents.values()]
    return sum(log.count(KEPT) for log in logs)


def _settle(shuttle: Shuttle, before: int) -> None:
    """Wait until both hosts have put the pages of a migration away, where they have a store.

    Raises:
        LabError: one does not.
    """
    if not all((host.run_directory / "store").exists() for host in shuttle.lab.hypervisors[:2]):
        return
    deadline = time.monotonic() + SETTLE_S_MAX
    while _keepings(shuttle) < before + 2:
        if time.monotonic() > deadline:
            raise LabError(f"pages were not put away within {SETTLE_S_MAX:g} s")
        time.sleep(0.25)


def _rows(guest: str, case: str, passage: Passage, cold: Passage) -> Iterator[Row]:
    method = "one migration over the lab's WAN, beside cold in the same run"
    values = [
        ("wire_bytes", passage.wire_bytes, "B"),
        ("channel_bytes", passage.channel_bytes, "B"),
        ("time_s", passage.time_s, "s"),
        ("cpu_s_per_gb", passage.cpu_s_per_gb, "s/GB"),
        ("known_share", passage.known_share, "1"),
        ("missed_segments", passage.missed, "1"),
        ("fewer_bytes_than_cold", cold.wire_bytes / max(passage.wire_bytes, 1), "1"),
    ]
    for metric, value, unit in values:
        yield Row(case=f"known/{guest}/{case}", metric=metric, value=value, unit=unit, n=1, method=method)
