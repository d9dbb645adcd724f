"""Fleets made up: for benchmarks, the referee, the simulator and tests.

The rule here: all chance comes from the generator that is handed in, so a seed names an instance for ever.

    mixed     three kinds of hosts, flavours from 1 to 32 vCPUs, racks, two datacentres; with rules: a fifth of the
              domains tied to one CPU model, a fifth in groups of 3 to 5 that stay apart, storage and networks not
              everywhere
    skewed    the same, placed by a preference for the first hosts: full at one end, empty at the other
    planted   sizes cut out of the hosts (Dirichlet) so that an assignment with every host at exactly `level` exists
    spread    domains with users in some region, hosts in datacentres of all regions, latencies by distance
"""

from typing import Final

import numpy as np

from dwcp_migrate.placement.fleet import MEMORY, VCPUS, Domain, Fleet, Host, Rule

HOST_KINDS: Final = ((48, 192 * 1024), (64, 256 * 1024), (96, 512 * 1024))
"""vCPUs and MiB."""

VCPUS_OF: Final = np.array([1, 2, 4, 8, 16, 32])
SHARES: Final = np.array([0.15, 0.25, 0.28, 0.2, 0.09, 0.03])
GIB_PER_VCPU: Final = np.array([2, 4, 8])
OVERCOMMIT: Final = 4.0
"""vCPUs to cores."""

RACK_HOSTS: Final = 10
GROUP: Final = (3, 6)

Rng = np.random.Generator


def hosts(rng: Rng, count: int, *, rules: bool = True) -> list[Host]:
    """Hosts of three kinds in racks of ten and two datacentres; with rules some lack a CPU model, a pool, a network."""
    made = []
    for number in range(count):
        vcpus, memory = HOST_KINDS[int(rng.integers(len(HOST_KINDS)))]
        newer = not rules or number % 3 != 0
        made.append(
            Host(
                name=f"hv{number + 1}",
                rack=f"rack{number // RACK_HOSTS + 1}",
                datacentre=f"dc{number // RACK_HOSTS % 2 + 1}",
                region="eu",
                capacity={VCPUS: vcpus, MEMORY: memory},
                overcommit={VCPUS: OVERCOMMIT},
                cpu_models=["v3", "v4"] if newer else ["v3"],
                storage=["ceph", "nfs"] if not rules or number % 5 else ["ceph"],
                networks=["lan", "dmz"] if not rules or number % 4 else ["lan"],
            )
        )
    return made


def domains(rng: Rng, count: int, *, rules: bool = True) -> list[Domain]:
    """Domains of the usual flavours, without a place; with rules some need a CPU model, a pool, a network."""
    vcpus = rng.choice(VCPUS_OF, count, p=SHARES)
    memory = vcpus * rng.choice(GIB_PER_VCPU, count) * 1024
    needs = rng.random((3, count)) < np.array([[0.2], [0.3], [0.2]]) if rules else np.zeros((3, count), np.bool_)
    return [
        Domain(
            name=f"vm{number + 1}",
            demand={VCPUS: float(vcpus[number]), MEMORY: float(memory[number])},
            cpu_model="v4" if needs[0, number] else "",
            storage=["nfs"] if needs[1, number] else [],
            networks=["dmz"] if needs[2, number] else [],
            dirty_bytes_per_s=float(rng.integers(0, 50)) * 1e6,
        )
        for number in range(count)
    ]


def groups(rng: Rng, count: int, share: float = 0.2) -> list[Rule]:
    """Rules that keep groups of 3 to 5 of `count` domains apart, until a share of them is in one."""
    made: list[Rule] = []
    order, used = rng.permutation(count), 0
    while used < share * count - GROUP[0]:
        size = int(rng.integers(*GROUP))
        names = [f"vm{number + 1}" for number in order[used : used + size]]
        made.append(Rule(name=f"apart{len(made) + 1}", kind="apart", domains=names))
        used += size
    return made


def mixed(rng: Rng, domain_count: int, host_count: int, *, rules: bool = True) -> Fleet:
    """Domains without a place, and hosts."""
    return Fleet(
        hosts=hosts(rng, host_count, rules=rules),
        domains=domains(rng, domain_count, rules=rules),
        rules=groups(rng, domain_count) if rules else [],
    )


def skewed(rng: Rng, domain_count: int, host_count: int, *, fill: float = 0.6, rules: bool = True) -> Fleet:
    """Domains placed with a preference for the first hosts, no rule broken, `fill` of all capacity promised."""
    from dwcp_migrate.placement.kernels.search import item_scores, put_item
    from dwcp_migrate.placement.model import build_problem

    fleet = mixed(rng, domain_count, host_count, rules=rules)
    fleet = sized(fleet, fill)
    problem = build_problem(fleet)
    preference = np.linspace(0, 1, host_count) ** 0.5
    scores = np.empty(host_count)
    placed = []
    for number, domain in enumerate(fleet.domains):
        item_scores(problem.table, number, scores)
        open_to = np.isfinite(scores)
        if not open_to.any():
            continue
        drawn = np.where(open_to, preference + rng.random(host_count) * 0.7, np.inf)
        put_item(problem.table, number, int(drawn.argmin()))
        placed.append(_at(domain, fleet.hosts[int(drawn.argmin())].name))
    kept = {domain.name for domain in placed}
    rules_kept = [_with(rule, [name for name in rule.domains if name in kept]) for rule in fleet.rules]
    return Fleet(hosts=fleet.hosts, domains=placed, rules=[rule for rule in rules_kept if len(rule.domains) > 1])


def planted(rng: Rng, host_count: int, per_host: int, level: float = 0.65, *, apart: float = 0.1) -> Fleet:
    """Domains for which an assignment with all hosts at exactly `level` in both resources exists.

    Args:
        rng: all chance.
        host_count: of one datacentre.
        per_host: domains cut out of each host.
        level: of every host in the hidden assignment.
        apart: share of the domains in groups that the hidden assignment keeps apart.
    """
    made = [
        Host(name=f"hv{number + 1}", capacity={VCPUS: float(v), MEMORY: float(m)})
        for number, (v, m) in enumerate(
            HOST_KINDS[int(kind)] for kind in rng.integers(len(HOST_KINDS), size=host_count)
        )
    ]
    found, owner = [], []
    for number, host in enumerate(made):
        shares = rng.dirichlet(np.full(per_host, 2.0), 2)
        for vcpus, memory in shares.T:
            amounts = {VCPUS: level * host.capacity[VCPUS] * vcpus, MEMORY: level * host.capacity[MEMORY] * memory}
            found.append(Domain(name="", demand=amounts))
            owner.append(number)
    order = rng.permutation(len(found))
    shuffled = [Domain(name=f"vm{place + 1}", demand=found[one].demand) for place, one in enumerate(order)]
    owners = np.array(owner)[order]
    rules: list[Rule] = []
    free = list(range(len(shuffled)))
    while len(free) > len(shuffled) * (1 - apart) and host_count > 2:  # noqa: PLR2004 - a group of three
        members: dict[int, int] = {}
        for one in free:
            members.setdefault(int(owners[one]), one)
            if len(members) == 3:  # noqa: PLR2004
                break
        if len(members) < 2:  # noqa: PLR2004 - nothing left to keep apart
            break
        names = [shuffled[one].name for one in members.values()]
        rules.append(Rule(name=f"apart{len(rules) + 1}", kind="apart", domains=names))
        free = [one for one in free if one not in set(members.values())]
    return Fleet(hosts=made, domains=shuffled, rules=rules)


def spread(rng: Rng, regions: int, datacentres: int, domain_count: int, *, fill: float = 0.6) -> Fleet:
    """Domains whose users are somewhere, one host in each datacentre, latency by distance on a plane of 100 ms."""
    places = rng.random((regions, 2)) * 100
    sites = places[np.arange(datacentres) % regions] + rng.normal(0, 3, (datacentres, 2))
    away = np.linalg.norm(sites[:, None] - sites[None], axis=2)
    names = [f"dc{number + 1}" for number in range(datacentres)]
    drawn = domains(rng, domain_count, rules=False)
    needed = {name: sum(domain.demand[name] for domain in drawn) / fill / datacentres for name in (VCPUS, MEMORY)}
    largest = {name: max(domain.demand[name] for domain in drawn) for name in needed}
    room = {name: max(needed[name], largest[name]) for name in needed}
    made = [
        Host(name=f"hv{number + 1}", datacentre=name, region=f"region{number % regions + 1}", capacity=room)
        for number, name in enumerate(names)
    ]
    origins = rng.integers(datacentres, size=domain_count)
    return Fleet(
        hosts=made,
        domains=[
            Domain(name=domain.name, demand=domain.demand, origin=names[int(origin)])
            for domain, origin in zip(drawn, origins, strict=True)
        ],
        latency_ms={a: {b: float(away[i, j]) for j, b in enumerate(names)} for i, a in enumerate(names)},
        latency_weight=1.0,
        balance={},
    )


def sized(fleet: Fleet, fill: float) -> Fleet:
    """Scale capacities so that the demand is `fill` of them."""
    factor = {}
    for name in (VCPUS, MEMORY):
        demand = sum(domain.demand[name] for domain in fleet.domains)
        room = sum(host.capacity[name] * host.overcommit.get(name, 1.0) for host in fleet.hosts)
        factor[name] = demand / fill / room
    scaled = [
        Host(
            name=host.name,
            rack=host.rack,
            datacentre=host.datacentre,
            region=host.region,
            capacity={name: float(np.ceil(amount * factor[name])) for name, amount in host.capacity.items()},
            overcommit=host.overcommit,
            cpu_models=host.cpu_models,
            storage=host.storage,
            networks=host.networks,
        )
        for host in fleet.hosts
    ]
    return Fleet(hosts=scaled, domains=fleet.domains, rules=fleet.rules)


def _at(domain: Domain, host: str) -> Domain:
    return Domain(**{name: getattr(domain, name) for name in domain.__struct_fields__} | {"host": host})


def _with(rule: Rule, members: list[str]) -> Rule:
    return Rule(**{name: getattr(rule, name) for name in rule.__struct_fields__} | {"domains": members or ["none"]})
