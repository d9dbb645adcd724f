"""Machine reassignment, the ROADEF/EURO challenge of 2012: reader of its files, and an independent checker.

Source: the challenge's published problem description ("Machine Reassignment Problem", Google, 2011). All numbers are
integers, separated by white space:

    resources      count; each: transient (0/1), weight of its load cost
    machines       count; each: neighbourhood, location, capacities, safety capacities, cost of moving to each machine
    services       count; each: least number of locations, number of services it depends on, these
    processes      count; each: service, requirements, cost of moving it
    balance costs  count; each: resource 1, resource 2, target; its weight
    weights        of process moves, service moves, machine moves

A solution is the machine of each process, on one line.

The rule here: the checker sums everything from the definition, process by process, and shares nothing with the search.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.errors import NotFoundError, PlacementError

COUNT_MAX: Final = 100_000
"""Of anything in a file; the largest instances of the challenge have 50 000 processes."""

BEST_KNOWN: Final = {
    "a1_1": 44_306_501,
    "a1_2": 777_532_896,
    "a1_3": 583_005_717,
    "a1_4": 252_728_589,
    "a1_5": 727_578_309,
    "a2_1": 198,
    "a2_2": 816_523_983,
    "a2_3": 1_306_868_761,
    "a2_4": 1_681_353_943,
    "a2_5": 336_170_182,
}
"""Best results of the challenge's qualification round, where these instances were set; later work found some lower."""

BOUNDS: Final = {
    "a1_1": 44_306_501,
    "a1_2": 777_530_829,
    "a1_3": 583_005_715,
    "a1_4": 242_404_642,
    "a1_5": 727_578_296,
    "a2_1": 120,
    "a2_2": 572_213_976,
    "a2_3": 1_068_028_987,
    "a2_4": 1_680_231_594,
    "a2_5": 307_042_542,
}
"""Nothing is below: proven by Gurobi 5.0 in up to an hour (S. Gualandi, "Challenging MIPs instances", 2012)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine."""

    neighbourhood: int
    location: int
    capacity: list[int]
    safety: list[int]
    move_cost: list[int]


@dataclass(frozen=True, slots=True)
class Service:
    """One service: in so many locations at least, next to those that it depends on."""

    spread: int
    needs: list[int]


@dataclass(frozen=True, slots=True)
class Process:
    """One process."""

    service: int
    needs: list[int]
    move_cost: int


@dataclass(frozen=True, slots=True)
class Balance:
    """A cost for each unit of `second` that is free below `target` times the free units of `first`."""

    first: int
    second: int
    target: int
    weight: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One problem.

    Attributes:
        transient: of each resource: a moved process holds it on both machines.
        load_weight: of each resource.
        start: machine of each process.
        process_weight: with `service_weight` and `machine_weight` of the costs of moves.
    """

    transient: list[bool]
    load_weight: list[int]
    machines: list[Machine]
    services: list[Service]
    processes: list[Process]
    balances: list[Balance]
    start: list[int]
    process_weight: int
    service_weight: int
    machine_weight: int


def parse(model: str, solution: str) -> Instance:
    """Read a model and the assignment at its start.

    Raises:
        PlacementError: a number is missing, too many are there, or one points at nothing.
    """
    numbers = _numbers(model)
    try:
        instance = _instance(numbers, [int(word) for word in solution.split()])
    except (StopIteration, ValueError, RuntimeError) as error:
        raise PlacementError(f"the instance ends early or holds what is no number: {error}") from error
    if next(numbers, None) is not None:
        raise PlacementError("the instance goes on behind its end")
    _check_references(instance)
    return instance


def _numbers(text: str) -> Iterator[int]:
    for word in text.split():
        yield int(word)


def _instance(numbers: Iterator[int], start: list[int]) -> Instance:
    def count() -> int:
        found = next(numbers)
        if not 0 <= found <= COUNT_MAX:
            raise ValueError(f"a count of {found}")
        return found

    def several(many: int) -> list[int]:
        return [next(numbers) for _ in range(many)]

    resources = [several(2) for _ in range(count())]
    machine_count = count()
    machines = [
        Machine(next(numbers), next(numbers), several(len(resources)), several(len(resources)), several(machine_count))
        for _ in range(machine_count)
    ]
    services = [Service(next(numbers), several(count())) for _ in range(count())]
    processes = [Process(next(numbers), several(len(resources)), next(numbers)) for _ in range(count())]
    balances = [Balance(next(numbers), next(numbers), next(numbers), next(numbers)) for _ in range(count())]
    return Instance(
        transient=[bool(one[0]) for one in resources],
        load_weight=[one[1] for one in resources],
        machines=machines,
        services=services,
        processes=processes,
        balances=balances,
        start=start,
        process_weight=next(numbers),
        service_weight=next(numbers),
        machine_weight=next(numbers),
    )


def _check_references(instance: Instance) -> None:
    services, machines, resources = len(instance.services), len(instance.machines), len(instance.transient)
    sound = (
        len(instance.start) == len(instance.processes)
        and all(0 <= machine < machines for machine in instance.start)
        and all(0 <= process.service < services for process in instance.processes)
        and all(0 <= need < services for service in instance.services for need in service.needs)
        and all(0 <= r < resources for balance in instance.balances for r in (balance.first, balance.second))
    )
    if not sound:
        raise PlacementError("the instance names a machine, service or resource that it does not have")


def best_known(name: str) -> int:
    """The best known value of an instance.

    Raises:
        NotFoundError: none is known here.
    """
    if name not in BEST_KNOWN:
        raise NotFoundError(f"no best known value for {name}", hint=f"one of {', '.join(BEST_KNOWN)}")
    return BEST_KNOWN[name]


def bound(name: str) -> int:
    """What no assignment of an instance is below.

    Raises:
        NotFoundError: none is known here.
    """
    best_known(name)
    return BOUNDS[name]


def violations(instance: Instance, assignment: list[int]) -> list[str]:
    """Say which hard constraints an assignment breaks."""
    found = [*_capacity(instance, assignment)]
    by_service: dict[int, list[int]] = defaultdict(list)
    for process, machine in zip(instance.processes, assignment, strict=True):
        by_service[process.service].append(machine)
    areas = {
        service: {instance.machines[machine].neighbourhood for machine in where}
        for service, where in by_service.items()
    }
    for number, service in enumerate(instance.services):
        where = by_service.get(number, [])
        if len(set(where)) < len(where):
            found.append(f"service {number}: two processes on one machine")
        if where and len({instance.machines[machine].location for machine in where}) < service.spread:
            found.append(f"service {number}: in fewer than {service.spread} locations")
        found += [
            f"service {number}: without service {need} in its neighbourhood"
            for need in service.needs
            if areas.get(number, set()) - areas.get(need, set())
        ]
    return found


def _capacity(instance: Instance, assignment: list[int]) -> Iterator[str]:
    for r, transient in enumerate(instance.transient):
        used: Counter[int] = Counter()
        for process, machine, home in zip(instance.processes, assignment, instance.start, strict=True):
            for place in {machine, home} if transient else {machine}:
                used[place] += process.needs[r]
        for number, machine_of in enumerate(instance.machines):
            if used[number] > machine_of.capacity[r]:
                yield f"machine {number}: {used[number]} of resource {r}, {machine_of.capacity[r]} there"


def objective(instance: Instance, assignment: list[int]) -> int:
    """Sum all costs of an assignment."""
    used = [[0] * len(instance.transient) for _ in instance.machines]
    for process, machine in zip(instance.processes, assignment, strict=True):
        for r, need in enumerate(process.needs):
            used[machine][r] += need
    total = 0
    for machine_of, amounts in zip(instance.machines, used, strict=True):
        for r, amount in enumerate(amounts):
            total += instance.load_weight[r] * max(0, amount - machine_of.safety[r])
        for balance in instance.balances:
            first = machine_of.capacity[balance.first] - amounts[balance.first]
            second = machine_of.capacity[balance.second] - amounts[balance.second]
            total += balance.weight * max(0, balance.target * first - second)
    return total + _moves(instance, assignment)


def _moves(instance: Instance, assignment: list[int]) -> int:
    moved: Counter[int] = Counter()
    total = 0
    for process, machine, home in zip(instance.processes, assignment, instance.start, strict=True):
        if machine != home:
            moved[process.service] += 1
            total += instance.process_weight * process.move_cost
        total += instance.machine_weight * instance.machines[home].move_cost[machine]
    return total + instance.service_weight * max(moved.values(), default=0)
