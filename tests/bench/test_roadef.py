"""Machine reassignment: the reader, the checker on an instance made by hand, and the search held by the checker."""

import numpy as np
import pytest

from bench.roadef import instance as roadef
from bench.roadef import kernel
from bench.roadef.arrays import arrays, counters
from bench.roadef.search import solve
from dwcp_migrate.errors import NotFoundError, PlacementError

# Two resources (the second transient), three machines (the third in another neighbourhood and location), two services
# (the first in two locations at least, the second needs the first near), three processes, one balance cost.
MODEL = """
2
0 10
1 1
3
0 0 20 20 10 20 0 1 4
0 0 20 20 15 20 1 0 4
1 1 20 20 20 20 4 4 0
2
2 0
1 1 0
3
0 12 2 5
0 3 3 5
1 4 12 100
1
0 1 2
7
1 10 100
"""
START = "0 2 0"


def test_the_reader_takes_every_number_where_it_belongs() -> None:
    instance = roadef.parse(MODEL, START)
    assert instance.transient == [False, True]
    assert instance.load_weight == [10, 1]
    assert instance.machines[1] == roadef.Machine(0, 0, [20, 20], [15, 20], [1, 0, 4])
    assert instance.services == [roadef.Service(2, []), roadef.Service(1, [0])]
    assert instance.processes[2] == roadef.Process(1, [4, 12], 100)
    assert instance.balances == [roadef.Balance(0, 1, 2, 7)]
    assert (instance.process_weight, instance.service_weight, instance.machine_weight) == (1, 10, 100)


@pytest.mark.parametrize(
    ("model", "start"),
    [
        (MODEL + " 1", START),
        (MODEL.rsplit(maxsplit=1)[0], START),
        (MODEL, "0 2"),
        (MODEL, "0 2 3"),
        (MODEL.replace("1 1 0\n3", "1 1 5\n3"), START),
        ("100001", START),
        ("x", START),
    ],
)
def test_a_broken_instance_is_refused(model: str, start: str) -> None:
    with pytest.raises(PlacementError, match="instance"):
        roadef.parse(model, start)


def test_the_checker_sums_what_can_be_summed_by_hand() -> None:
    instance = roadef.parse(MODEL, START)
    # used: machine 0 (16, 14), machine 2 (3, 3). Load: 10 * (16 - 10). Balance, 2 * free of 0 - free of 1, times 7:
    # machine 0: 2 * 4 - 6 = 2; machine 1: 40 - 20 = 20; machine 2: 34 - 17 = 17.
    assert roadef.objective(instance, [0, 2, 0]) == 60 + 7 * (2 + 20 + 17)
    # the first process moves to machine 1: load 0; balance 0: 2 * 16 - 8 = 24, 1: 16 - 18 < 0, 2: 17;
    # the move: 5, one of its service: 10, the way: 100.
    assert roadef.objective(instance, [1, 2, 0]) == 7 * (24 + 17) + 5 + 10 + 100


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ([0, 2, 0], ""),
        ([0, 0, 0], "two processes on one machine"),
        ([0, 1, 0], "fewer than 2 locations"),
        ([2, 2, 0], "without service 0"),
        ([0, 2, 1], ""),
    ],
)
def test_the_checker_names_each_constraint(assignment: list[int], says: str) -> None:
    found = roadef.violations(roadef.parse(MODEL, START), assignment)
    assert any(says in one for one in found) if says else found == []


def test_a_transient_resource_is_held_on_both_machines() -> None:
    full = roadef.parse(MODEL.replace("0 0 20 20 15 20", "0 0 20 13 15 20"), START)
    assert roadef.violations(full, [1, 2, 0]) == []
    assert roadef.violations(full, [1, 2, 1]) == ["machine 1: 14 of resource 1, 13 there"]


def test_the_search_never_breaks_a_constraint_and_never_ends_worse() -> None:
    instance = roadef.parse(MODEL, START)
    found = solve(instance, 0.2, 1)
    assert roadef.violations(instance, found) == []
    assert roadef.objective(instance, found) <= roadef.objective(instance, [0, 2, 0])
    everything = [
        [a, b, c] for a in range(3) for b in range(3) for c in range(3) if roadef.violations(instance, [a, b, c]) == []
    ]
    assert roadef.objective(instance, found) == min(roadef.objective(instance, one) for one in everything)


def drawn_instance(seed: int) -> roadef.Instance:
    draw = np.random.Generator(np.random.PCG64(seed))
    machines, services, processes = 12, 20, 60
    lines = ["2", "0 10", "1 1", str(machines)]
    for number in range(machines):
        ways = " ".join(str(int(abs(number - other))) for other in range(machines))
        lines.append(f"{number % 3} {number % 4} 300 300 60 60 {ways}")
    lines += [str(services), *("1 0" if number % 4 else f"1 1 {number + 1}" for number in range(services))]
    amounts = draw.integers(1, 40, (processes, 3))
    lines += [str(processes), *(f"{n % services} {a} {b} {c}" for n, (a, b, c) in enumerate(amounts))]
    lines += ["1", "0 1 1", "5", "1 10 20"]
    start = [n % machines for n in range(processes)]  # the three of a service are in all three neighbourhoods
    return roadef.parse("\n".join(lines), " ".join(map(str, start)))


def test_a_larger_instance_of_chance_is_held_by_the_checker() -> None:
    instance = drawn_instance(3)
    assert roadef.violations(instance, instance.start) == []
    found = solve(instance, 0.5, 1)
    assert roadef.violations(instance, found) == []
    assert roadef.objective(instance, found) < roadef.objective(instance, instance.start)


@pytest.mark.parametrize("seed", range(5))
def test_what_the_kernel_counts_on_its_way_is_what_the_assignment_says(seed: int) -> None:
    instance = drawn_instance(seed)
    a = arrays(instance)
    c, best, sums = counters(a, a.start, 0.5), a.start.copy(), np.zeros(kernel.SLOTS)
    chance = np.array([seed + 1], np.uint64)
    broken = 0
    for heat in (3000.0, 300.0, 30.0):
        kernel.block(a, c, best, sums, chance, (heat, heat, 0.4, 0.3, 5000))
        anew = counters(a, c.host, 0.5)
        for name in ("over", "full", "cost", "strain", "on", "at", "near", "locations", "moved", "having", "held"):
            np.testing.assert_allclose(getattr(c, name), getattr(anew, name), err_msg=name)
        host = [int(machine) for machine in c.host]
        start = roadef.objective(instance, instance.start)
        assert start + sums[kernel.NOW] == roadef.objective(instance, host)
        assert start + sums[kernel.BEST] == roadef.objective(instance, [int(one) for one in best])
        assert roadef.violations(instance, [int(one) for one in best]) == []
        found = roadef.violations(instance, host)
        assert sums[kernel.BROKEN] == len({one.split(":")[0] for one in found if one.startswith("machine")})
        missing = [one for one in found if "without service" in one]
        assert (sums[kernel.MISSED] > 0) == bool(missing)
        assert not any("two processes" in one or "fewer than" in one for one in found)
        broken += len(found)
    assert broken > 0, "nothing was ever broken, so nothing was shown"


def test_proposals_that_go_home_bring_everybody_home() -> None:
    instance = drawn_instance(2)
    a = arrays(instance)
    away = a.start.copy()
    away[0] = next(
        machine for machine in range(12) if roadef.violations(instance, [machine, *instance.start[1:]]) == []
    )
    heat, swaps, homeward = 1e9, 0.0, 1.0
    for share, comes_home in ((homeward, True), (0.0, False)):
        c, best, sums = counters(a, away, 0.5), away.copy(), np.zeros(kernel.SLOTS)
        chance = np.array([1], np.uint64)
        kernel.block(a, c, best, sums, chance, (heat, heat, swaps, share, 2000))
        assert bool((c.host == a.start).all()) == comes_home


def test_a_broken_capacity_gets_dearer_and_another_cheaper_down_to_the_least() -> None:
    a = arrays(drawn_instance(1))
    c = counters(a, np.zeros_like(a.start), 4.0)  # all on the first machine
    assert kernel.reprice(c, 2.0, 0.5, 3.0) == 1
    np.testing.assert_array_equal(c.price[0], [8.0, 8.0, 3.0, 3.0])  # two resources; the balance cost breaks nothing
    np.testing.assert_array_equal(c.price[1:], 3.0)
    assert c.strain[0] == 8.0 * (c.full[0, 0] + c.full[0, 1])
    assert not c.strain[1:].any()


def test_only_known_instances_have_a_best_known_value() -> None:
    assert roadef.best_known("a1_1") == 44_306_501
    with pytest.raises(NotFoundError, match="b_1"):
        roadef.best_known("b_1")
