"""The fleet as one value: hosts, domains, rules and distances, and the JSON file that holds them.

The rule here: plain data. The source of a fleet (a file, libvirt, the replicated state) makes a `Fleet`; placement
reads nothing else. Unknown keys, wrong types and sizes past the limits are refused with their path.

    {"hosts":   [{"name": "hv1", "rack": "r1", "datacentre": "dc1", "region": "eu", "capacity": {"vcpus": 64,
                "memory_mib": 262144}}],
     "domains": [{"name": "web1", "host": "hv1", "demand": {"vcpus": 4, "memory_mib": 8192}}],
     "rules":   [{"name": "web", "kind": "apart", "domains": ["web1", "web2"], "level": "rack"}]}

Every resource is a name and a number: `vcpus`, `memory_mib`, `hugepages_1g`, `disk_gib`, `network_mbit`, `gpu_a100`, or
any other that the fleet counts. A host that does not name a resource has none of it.
"""

from difflib import get_close_matches
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement_rule import RULE_LEVELS, PlacementRule, RuleKind, RuleLevel

HOSTS_MAX: Final = 20_000
DOMAINS_MAX: Final = 200_000
RULES_MAX: Final = 20_000
RESOURCES_MAX: Final = 32
CELLS_MAX: Final = 8
"""NUMA cells that one domain may ask for."""

SERIES_MAX: Final = 10_080
"""A week of minutes."""

FILE_BYTES_MAX: Final = 512 * 1024 * 1024

VCPUS: Final = "vcpus"
MEMORY: Final = "memory_mib"
CPU_USED: Final = "cpu_used"
"""Cores' worth of CPU time, where it is measured."""

ALIKE_MIN: Final = 0.8
"""Likeness from which the name of a resource is taken for a misspelt one of these."""


Level = RuleLevel
LEVELS: Final = RULE_LEVELS
Kind = RuleKind
HostState = Literal["up", "maintenance", "down"]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Amounts = dict[Name, Amount]


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One NUMA cell of a host."""

    vcpus: Amount
    memory_mib: Amount


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One hypervisor.

    Attributes:
        rack: with `datacentre` and `region` where it stands; hosts without one share the zone "".
        capacity: what it has, physically.
        overcommit: factor by resource on `capacity`; 1 where it is not named.
        reserve: kept free, by resource, in units of it (the hypervisor's own memory).
        cells: its NUMA cells; none means that no domain may ask for cells here.
        cpu_models: CPU models that it can run, as keys that domains name; empty means any.
        storage: pools that it reaches, `networks` likewise.
        state: only an `up` host takes domains; those on a host in `maintenance` or `down` are to leave it.
        note: why it is in that state, in words for the operator.
        closed: why it takes no further domain while those on it stay, in words; empty where it takes them.
        link_bytes_per_s: what its migration link carries.
    """

    name: Name
    rack: str = ""
    datacentre: str = ""
    region: str = ""
    capacity: Amounts
    overcommit: Amounts = {}
    reserve: Amounts = {}
    cells: Annotated[list[Cell], Meta(max_length=256)] = []
    cpu_models: list[Name] = []
    storage: list[Name] = []
    networks: list[Name] = []
    state: HostState = "up"
    note: str = ""
    closed: str = ""
    link_bytes_per_s: Annotated[float, Meta(gt=0)] = 125e6


class Domain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One domain.

    Attributes:
        host: where it runs; empty when it has no place yet.
        arriving: the host that it is migrating to just now: it counts on both, and stays out of new plans.
        demand: what it is promised; capacity is checked with it.
        load: what it uses, where that is measured; balance is judged by it. A resource not named: its demand.
        series: used amounts over time, by resource, oldest first, equally spaced; `Fleet.quantile` of it stands for
            `load` where that is not given.
        cpu_model: key that its host must have; empty runs anywhere.
        storage: pools that it needs, `networks` likewise.
        cells: NUMA cells that it must have, each with an equal share of its vCPUs and memory; 0 floats.
        origin: datacentre of those who use it; empty does not care.
        latency_ms_max: bound of the way from `origin`; 0 is none.
        movable: false keeps it where it is; `stays` says why, in words.
        bars: names in `Fleet.bars`: where it cannot run.
        uuid: libvirt's, where it is known: names may repeat, it does not.
        dirty_bytes_per_s: how fast it writes memory.
        copied_mib: of its disks, that its migration copies too.
    """

    name: Name
    host: str = ""
    arriving: str = ""
    demand: Amounts
    load: Amounts = {}
    series: dict[Name, Annotated[list[Amount], Meta(min_length=1, max_length=SERIES_MAX)]] = {}
    cpu_model: str = ""
    storage: list[Name] = []
    networks: list[Name] = []
    cells: Annotated[int, Meta(ge=0, le=CELLS_MAX)] = 0
    origin: str = ""
    latency_ms_max: Amount = 0.0
    movable: bool = True
    stays: str = ""
    bars: list[Name] = []
    uuid: str = ""
    dirty_bytes_per_s: Amount = 0.0
    copied_mib: Amount = 0.0


Rule = PlacementRule
"""The name within placement."""


class Fleet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it.

    Attributes:
        latency_ms: one way between datacentres: `latency_ms["a"]["b"]`, read in either direction; within one it is 0,
            between two that it does not name `far_ms`.
        latency_weight: objective for one millisecond from a domain's origin.
        balance: resources that are kept even, with their weights.
        quantile: of `Domain.series`.
        bars: by a name that domains give in `Domain.bars`: the hosts that cannot run them, and why in words.
        reserve_hosts: so many of the largest hosts may fail, and the others still have room for all (N+1 is 1).
    """

    hosts: Annotated[list[Host], Meta(max_length=HOSTS_MAX)]
    domains: Annotated[list[Domain], Meta(max_length=DOMAINS_MAX)] = []
    rules: Annotated[list[Rule], Meta(max_length=RULES_MAX)] = []
    latency_ms: dict[str, dict[str, Amount]] = {}
    far_ms: Amount = 100.0
    latency_weight: Amount = 0.001
    balance: Amounts = msgspec.field(default_factory=lambda: {VCPUS: 1.0, MEMORY: 1.0})
    quantile: Annotated[float, Meta(ge=0, le=1)] = 0.95
    reserve_hosts: Annotated[int, Meta(ge=0)] = 0
    bars: dict[Name, dict[Name, str]] = {}


def decode_fleet(data: bytes) -> Fleet:
    """Read a fleet from JSON.

    Raises:
        PlacementError: too large, not JSON, an unknown key, a wrong type or value, or it contradicts itself.
    """
    if len(data) > FILE_BYTES_MAX:
        raise PlacementError(f"fleet: {len(data)} bytes are more than {FILE_BYTES_MAX}")
    try:
        fleet = msgspec.json.decode(data, type=Fleet)
    except msgspec.MsgspecError as error:
        raise PlacementError(f"fleet: {error}", hint="see docs/placement.md") from error
    check_fleet(fleet)
    return fleet


def encode_fleet(fleet: Fleet) -> bytes:
    """Write a fleet as JSON."""
    return msgspec.json.encode(fleet)


def zone(host: Host, level: Level) -> str:
    """Name the zone of a level that a host stands in.

    Args:
        host: of a fleet.
        level: `host`, `rack`, `datacentre` or `region`.
    """
    if level == "host":
        return host.name
    if level == "rack":
        return host.rack
    return host.datacentre if level == "datacentre" else host.region


def check_fleet(fleet: Fleet) -> None:
    """Check the rules of a fleet that types cannot express.

    Raises:
        PlacementError: two of one name, or a name that nothing bears.
    """
    _check_resources(fleet)
    hosts = _unique("host", [host.name for host in fleet.hosts])
    domains = _unique("domain", [domain.name for domain in fleet.domains])
    _unique("rule", [rule.name for rule in fleet.rules])
    for domain in fleet.domains:
        for where in (domain.host, domain.arriving):
            if where and where not in hosts:
                raise PlacementError(f"fleet: domain {domain.name} is on {where}, which is no host")
        if domain.arriving and not domain.host:
            raise PlacementError(f"fleet: domain {domain.name} arrives at {domain.arriving} from nowhere")
    for rule in fleet.rules:
        _check_rule(fleet, rule, domains)


def _check_resources(fleet: Fleet) -> None:
    """Refuse a resource that is named almost like one that every fleet has: it would count nowhere."""
    known = (VCPUS, MEMORY, CPU_USED)
    given = dict.fromkeys(
        [
            *(name for host in fleet.hosts for name in host.capacity),
            *(name for domain in fleet.domains for name in (*domain.demand, *domain.load)),
            *fleet.balance,
        ]
    )
    for name in given:
        alike = [] if name in known else get_close_matches(name.lower(), known, n=1, cutoff=ALIKE_MIN)
        if alike:
            raise PlacementError(f"fleet: resource {name} is not known", hint=f"did you mean {alike[0]}?")


def _check_rule(fleet: Fleet, rule: Rule, domains: set[str]) -> None:
    _unique(f"member of rule {rule.name}", rule.domains)
    for name in rule.domains:
        if name not in domains:
            raise PlacementError(
                f"fleet: rule {rule.name} names {name}, which is no domain", hint="rules remove takes it out"
            )
    if rule.kind in {"pin", "exclude"}:
        known = {zone(host, rule.level) for host in fleet.hosts}
        for name in rule.zones:
            if name not in known:
                raise PlacementError(f"fleet: rule {rule.name} names {name}, which is no {rule.level}")
        if not rule.zones:
            raise PlacementError(f"fleet: rule {rule.name} names no {rule.level}")


def _unique(what: str, names: list[str]) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise PlacementError(f"fleet: {what} {name} is there twice")
        seen.add(name)
    return seen
