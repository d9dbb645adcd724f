"""Fleets of the shape of public fault reports of other schedulers, and what a plan for each must be.

The data is invented; each test names the kind of complaint that it answers.
"""

from typing import Any

import msgspec
import numpy as np
import pytest

from dwcp_migrate.placement.fleet import Domain, Fleet, Host, Rule
from dwcp_migrate.placement.plan import Plan
from dwcp_migrate.placement.planner import plan_drain, plan_rebalance


def host(name: str, vcpus: float = 64, memory_mib: float = 262144, **more: Any) -> Host:
    capacity = {"vcpus": vcpus, "memory_mib": memory_mib}
    return Host(name=name, capacity=capacity, overcommit={"vcpus": 4}, reserve={"memory_mib": 1024}, **more)


def guest(name: str, where: str, vcpus: float = 4, memory_mib: float = 8192, **more: Any) -> Domain:
    return Domain(name=name, host=where, demand={"vcpus": vcpus, "memory_mib": memory_mib}, **more)


def hosts(count: int) -> list[Host]:
    return [host(f"hv{number}") for number in range(1, count + 1)]


def after(fleet: Fleet, plan: Plan) -> Fleet:
    """The fleet once a plan was carried out."""
    where = {step.domain: step.destination for step in plan.steps}
    moved = [msgspec.structs.replace(one, host=where.get(one.name, one.host)) for one in fleet.domains]
    return msgspec.structs.replace(fleet, domains=moved)


def test_a_member_of_a_quorum_that_has_no_other_host_stays_with_a_reason_for_each() -> None:
    domains = [guest(f"etcd{number}", f"hv{number}") for number in (1, 2, 3)]
    domains += [guest(f"web{number}", "hv1") for number in range(5)]
    rule = Rule(name="etcd", kind="apart", domains=["etcd1", "etcd2", "etcd3"])
    plan = plan_drain(Fleet(hosts=hosts(3), domains=domains, rules=[rule]), "hv1")
    assert {step.domain for step in plan.steps} == {f"web{number}" for number in range(5)}
    assert [(one.domain, one.why) for one in plan.left] == [
        ("etcd1", "hv2: rule etcd: etcd2 is in that host; hv3: rule etcd: etcd3 is in that host")
    ]


def test_soft_parts_join_only_while_they_must_and_part_again_by_themselves() -> None:
    domains = [guest(f"app{number}", f"hv{number}", 8, 32768) for number in range(1, 6)]
    domains += [guest(f"batch{number}", "hv1", 16, 32768) for number in range(4)]
    rule = Rule(name="app", kind="apart", hard=False, domains=[f"app{number}" for number in range(1, 6)])
    fleet = Fleet(hosts=hosts(5), domains=domains, rules=[rule])
    drained = after(fleet, plan := plan_drain(fleet, "hv1"))
    assert plan.left == []
    assert not any(one.host == "hv1" for one in drained.domains)
    back = plan_rebalance(drained)
    assert "app1" in {step.domain for step in back.steps if step.destination == "hv1"}


def test_hard_parts_go_to_the_one_host_that_is_free() -> None:
    domains = [guest(f"db{number}", f"hv{number}", 8, 32768) for number in (1, 2, 3)]
    domains += [guest(f"w{number}", "hv4", 4, 16384) for number in range(3)]
    rule = Rule(name="db", kind="apart", domains=["db1", "db2", "db3"])
    plan = plan_drain(Fleet(hosts=hosts(4), domains=domains, rules=[rule]), "hv1")
    assert [(step.domain, step.destination) for step in plan.steps] == [("db1", "hv4")]


def test_one_broken_rule_moves_one_domain() -> None:
    domains = [guest(f"vm{number:02}", f"hv{1 + number % 3}") for number in range(36)]
    rule = Rule(name="pair", kind="apart", domains=["vm00", "vm03"])
    assert len(plan_rebalance(Fleet(hosts=hosts(3), domains=domains, rules=[rule])).steps) == 1


def test_scarce_memory_is_evened_out_by_few_moves_and_then_left_alone() -> None:
    rng = np.random.default_rng(5)
    taken = dict.fromkeys(("a", "b", "c"), 0.0)
    domains = []
    for number, mib in enumerate([2048] * 10 + [4096] * 10 + [8192] * 8 + [16384] * 4):
        at = str(rng.choice(list(taken), p=[0.5, 0.3, 0.2]))
        at = min(taken, key=taken.__getitem__) if taken[at] + mib > 88000 else at
        taken[at] += mib
        domains.append(guest(f"vm{number:02}", at, 2, mib))
    fleet = Fleet(hosts=[host(name, 16, 98304) for name in taken], domains=domains)
    plan = plan_rebalance(fleet)
    assert 1 <= len(plan.steps) <= 5
    assert plan.after.fullest < plan.before.fullest
    assert plan_rebalance(after(fleet, plan)).steps == []


def test_what_fits_leaves_and_the_rest_is_named_with_figures() -> None:
    domains = [guest(f"a{number}", "hv1", 4, 24576) for number in range(5)]
    domains += [guest(f"b{number}", "hv2", 4, 24576) for number in range(3)]
    fleet = Fleet(hosts=[host("hv1", 32, 131072), host("hv2", 32, 131072)], domains=domains)
    plan = plan_drain(fleet, "hv1")
    assert len(plan.steps) == 2
    assert {one.why for one in plan.left} == {"hv2: it has 7168 memory_mib free, 24576 are needed"}


def test_a_second_host_in_maintenance_takes_nobody_and_what_it_keeps_is_no_failure_of_this_drain() -> None:
    domains = [guest(f"a{number}", "hv2") for number in range(4)]
    domains += [guest("c1", "hv3"), guest("stuck", "hv1", movable=False, stays="it uses a device of the host")]
    fleet = Fleet(hosts=[host("hv1", state="maintenance"), host("hv2"), host("hv3")], domains=domains)
    plan = plan_drain(fleet, "hv2")
    assert {step.destination for step in plan.steps} == {"hv3"}
    assert (len(plan.steps), plan.left) == (4, [])
    assert [one.domain for one in plan_drain(fleet, "hv1").left] == ["stuck"]


def test_a_domain_that_is_pinned_to_the_drained_host_stays_with_the_rule_s_name() -> None:
    rule = Rule(name="vm1-node1", kind="pin", domains=["vm1"], zones=["node1"])
    domains = [guest("vm0", "node1"), guest("vm1", "node1")]
    fleet = Fleet(hosts=[host("node0"), host("node1")], domains=domains, rules=[rule])
    plan = plan_drain(fleet, "node1")
    assert [step.domain for step in plan.steps] == ["vm0"]
    assert [(one.domain, one.why) for one in plan.left] == [("vm1", "node0: rule vm1-node1 pins it elsewhere")]


def test_an_idle_fleet_is_left_alone() -> None:
    idle = [guest(f"v{number}", "px1", 2, 2048, load={"vcpus": 0.05, "memory_mib": 900}) for number in range(6)]
    idle.append(guest("w", "px2", 2, 2048, load={"vcpus": 0.02, "memory_mib": 500}))
    assert plan_rebalance(Fleet(hosts=[host("px1", 32, 131072), host("px2", 32, 131072)], domains=idle)).steps == []


def test_a_domain_that_is_pinned_where_it_is_does_not_flap() -> None:
    sites = [host("a", datacentre="dc1"), host("b", datacentre="dc2")]
    rule = Rule(name="dc1", kind="pin", level="datacentre", domains=["srv"], zones=["dc1"])
    fleet = Fleet(hosts=sites, domains=[guest("srv", "a"), guest("other", "b")], rules=[rule])
    assert plan_rebalance(fleet).steps == []


def test_a_host_that_is_hot_by_load_is_relieved_though_promises_are_even() -> None:
    hot = {"vcpus": 28.0, "memory_mib": 15000}
    cold = {"vcpus": 0.2, "memory_mib": 2000}
    domains = [guest(f"hot{number}", "hv1", 8, 16384, load=hot) for number in range(3)]
    domains += [guest(f"cold{at}{number}", f"hv{at}", 8, 16384, load=cold) for at in (2, 3) for number in range(3)]
    plan = plan_rebalance(Fleet(hosts=[host(f"hv{number}", 32, 131072) for number in (1, 2, 3)], domains=domains))
    assert len(plan.steps) == 2
    assert plan.before.fullest > 0.6
    assert plan.after.fullest < 0.25


def test_two_full_and_even_hosts_are_left_alone() -> None:
    load = {"vcpus": 7.9, "memory_mib": 8000}
    domains = [guest(f"s{number}", f"n{2 + number % 2}", 8, 8192, load=load) for number in range(12)]
    empty = host("n1", 16, 65536, state="maintenance")
    assert (
        plan_rebalance(Fleet(hosts=[empty, host("n2", 16, 65536), host("n3", 16, 65536)], domains=domains)).steps == []
    )


@pytest.mark.parametrize(("swing", "moves_max", "back_max"), [(0.1, 0, 0), (0.3, 3, 0), (0.6, 16, 3), (1.0, 48, 6)])
def test_loads_that_swing_cause_few_moves_and_hardly_any_straight_back(
    swing: float, moves_max: int, back_max: int
) -> None:
    fleet_hosts = [
        Host(name=f"hv{number}", capacity={"vcpus": 32, "memory_mib": 131072}, overcommit={"vcpus": 2.0})
        for number in range(1, 5)
    ]
    base = np.random.default_rng(7).lognormal(0.2, 0.8, 48)
    rng = np.random.default_rng(8)
    where = {f"vm{number:02}": f"hv{1 + number % 4}" for number in range(48)}
    came: dict[str, str] = {}
    moves = back = 0
    for _hour in range(24):
        used = np.minimum(4.0, base * np.exp(rng.normal(0, swing, 48)))
        domains = [
            guest(name, at, 4, 6144, load={"vcpus": float(cpu), "memory_mib": 3000.0})
            for (name, at), cpu in zip(where.items(), used, strict=True)
        ]
        for step in plan_rebalance(Fleet(hosts=fleet_hosts, domains=domains)).steps:
            moves += 1
            back += came.get(step.domain) == step.destination
            came[step.domain], where[step.domain] = step.source, step.destination
    assert moves <= moves_max
    assert back <= back_max
