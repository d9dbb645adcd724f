"""Suite `watch`: a month of a fleet under the service that relieves it, and loads out of libvirt's bulk statistics.

month/<hosts>x<guests>/<alone|promises|watch>   moves a day for balance, hours a day above the threshold of all hosts
together, worst host; loads as recorded, all else drawn from one
seed, so that all three meet the same loads, failures and maintenance
load/<hosts>x<guests>                           CPU of reading all use once: bulk statistics in libvirt's format,
already decoded by its binding, to a fleet whose use is known
inventory/<hosts>x<guests>                      CPU of reading all descriptions of hosts and guests, to a fleet; and
of a plan for it, which evens it out
"""

import time
from typing import Any, Final

import numpy as np

from bench.fleets.libvirt_answers import AnsweringHypervisors, answering_hosts
from bench.fleets.month import Month, Outcome
from bench.frame import Options, Row
from dwcp_migrate.agent.forecasting.load_meter import LoadMeter, merged
from dwcp_migrate.hypervisor.load_counters import HostCounters, guest_counters
from dwcp_migrate.orchestration.fleet_source import FleetSettings, LibvirtFleet
from dwcp_migrate.orchestration.measured_load import by_agents
from dwcp_migrate.placement.fleet import Domain, Fleet, Host
from dwcp_migrate.placement.planner import plan_rebalance
from dwcp_migrate.placement.watch_settings import WatchSettings
from dwcp_migrate.protocol.load import FleetLoad, GuestLoad, HostLoad

SEED: Final = 14
SETTINGS: Final = WatchSettings(mode="on")


def rows(options: Options) -> list[Row]:
    """Measure all cases."""
    hosts, guests, days = (20, 400, 3) if options.quick else (200, 5000, 30)
    found = []
    sizes = (100, 25) if options.quick else (2000, 25)
    if not options.only or "inventory".startswith(options.only[:9]):
        found += inventory_rows(*sizes)
    if not options.only or "load".startswith(options.only[:4]):
        found.append(load_row(*sizes))
    if not options.only or options.only.startswith("month"):
        month = Month(np.random.default_rng(SEED), hosts, guests, days)
        for name, outcome in (
            ("alone", month.run(None)),
            ("promises", month.run(None, by_promises=True)),
            ("watch", month.run(SETTINGS)),
        ):
            found += _month_rows(f"month/{hosts}x{guests}/{name}", outcome, days)
    return found


def _month_rows(case: str, outcome: Outcome, days: int) -> list[Row]:
    threshold = f"{SETTINGS.threshold * 100:.0f} %"
    method = f"simulated on recorded loads, steps of 5 min over {days} days, seed {SEED}; threshold {threshold}"
    figures = (
        ("moves a day", outcome.moves / days, "1"),
        ("moves on the first day", outcome.first_day, "1"),
        ("hours a day above the threshold, all hosts", outcome.hot_s / days / 3600, "h"),
        ("worst host", outcome.worst * 100, "%"),
        ("worst host, 99 of 100 moments", outcome.worst_p99 * 100, "%"),
        ("rules broken", outcome.broken, "1"),
        ("moves within the cool-down", outcome.early, "1"),
    )
    return [
        Row(case=case, metric=name, value=float(value), unit=unit, n=1, method=method) for name, value, unit in figures
    ]


def record(number: int, look: int) -> dict[str, Any]:
    """One domain's bulk statistics as libvirt 11.3's binding gives them: two disks, one interface, four vCPUs."""
    found: dict[str, Any] = {"cpu.time": (number % 7 + 1) * look * 1_000_000_000, "cpu.user": 1, "cpu.system": 1}
    for name in ("current", "maximum", "swap_in", "swap_out", "major_fault", "minor_fault", "unused", "available"):
        found[f"balloon.{name}"] = 4194304
    found |= {"balloon.usable": 3000000, "balloon.rss": 1200000, "net.count": 1, "net.0.name": "vnet0"}
    for name in ("bytes", "pkts", "errs", "drop"):
        found |= {f"net.0.rx.{name}": look * 1000, f"net.0.tx.{name}": look * 500}
    found["block.count"] = 2
    for disk in range(2):
        found |= {f"block.{disk}.name": "vda", f"block.{disk}.path": "/srv/a.qcow2"}
        for name in ("rd.reqs", "rd.bytes", "rd.times", "wr.reqs", "wr.bytes", "wr.times", "fl.reqs", "fl.times"):
            found[f"block.{disk}.{name}"] = look * 4096
        found |= {f"block.{disk}.{name}": 1 << 30 for name in ("allocation", "capacity", "physical")}
    return found


def uuid_of(host: int, guest: int) -> str:
    """A guest's UUID."""
    return f"{host:08x}-0000-4000-8000-{guest:012x}"


def weigh(hosts: int, guests: int) -> tuple[Fleet, float]:
    """Read the loads of a fleet once; the fleet that knows them, and the CPU seconds that it took."""
    answers = [
        [[(uuid_of(host, guest), record(guest, look)) for guest in range(guests)] for host in range(hosts)]
        for look in (1, 2)
    ]
    fleet = Fleet(
        hosts=[Host(name=f"h{host}", capacity={"vcpus": 64, "memory_mib": 262144}) for host in range(hosts)],
        domains=[
            Domain(name=f"g{host}-{guest}", uuid=uuid_of(host, guest), host=f"h{host}", demand={"vcpus": 4})
            for host in range(hosts)
            for guest in range(guests)
        ],
    )
    meters = [LoadMeter(None) for _ in range(hosts)]
    for meter, answer in zip(meters, answers[0], strict=True):
        meter.take(1000.0, HostCounters(1.0, 1.0, 0.0, {uuid: guest_counters(values) for uuid, values in answer}))
    began = time.process_time()
    told: dict[str, HostLoad] = {}
    own: dict[str, list[GuestLoad]] = {}
    for number, (meter, answer) in enumerate(zip(meters, answers[1], strict=True)):
        meter.take(1010.0, HostCounters(2.0, 1.0, 0.0, {uuid: guest_counters(values) for uuid, values in answer}))
        load = meter.load(10.0)
        told[f"h{number}"], own[f"h{number}"] = load, load.guests
    known = by_agents(fleet, FleetLoad(hosts=told, guests=merged(told, own)), 1012.0)
    return known, time.process_time() - began


def load_row(hosts: int, guests: int) -> Row:
    """CPU of measuring the use of a fleet."""
    _, seconds = weigh(hosts, guests)
    method = "process CPU of counters, rates, quantiles and the fleet that knows them; records of libvirt's format"
    return Row(case=f"load/{hosts}x{hosts * guests}", metric="CPU", value=seconds, unit="s", n=1, method=method)


def read_inventory(hosts: int, guests: int, rng: np.random.Generator) -> tuple[Fleet, float]:
    """Read what all libvirtds of a fleet describe; the fleet, and the CPU seconds that it took.

    Args:
        hosts: how many.
        guests: on each; of 1 to 4 vCPUs and 2 to 16 GiB.
        rng: their sizes.
    """
    drawn = zip(rng.choice([1, 2, 4], hosts * guests), rng.choice([2048, 4096, 16384], hosts * guests), strict=True)
    sizes = [(int(vcpus), int(mib)) for vcpus, mib in drawn]
    answering = answering_hosts(
        [[(uuid_of(host, guest), *sizes[host * guests + guest]) for guest in range(guests)] for host in range(hosts)]
    )
    asked = AnsweringHypervisors(answering)
    source = LibvirtFleet(asked, {name: name for name in answering}, FleetSettings, {})
    began = time.process_time()
    fleet = source.snapshot()
    return fleet, time.process_time() - began


def inventory_rows(hosts: int, guests: int) -> list[Row]:
    """CPU of reading a fleet's descriptions, and of a plan for it."""
    fleet, read_s = read_inventory(hosts, guests, np.random.default_rng(SEED))
    began = time.process_time()
    plan = plan_rebalance(fleet)
    planned_s = time.process_time() - began
    case = f"inventory/{hosts}x{hosts * guests}"
    method = "process CPU from descriptions of libvirt's format and length to a fleet, making the texts included"
    planned = f"process CPU of evening that fleet out: {len(plan.steps)} moves"
    return [
        Row(case=case, metric="CPU", value=read_s, unit="s", n=1, method=method),
        Row(case=case, metric="plan CPU", value=planned_s, unit="s", n=1, method=planned),
    ]
