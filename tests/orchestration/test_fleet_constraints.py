"""What the fleet's shared state says to placement, and how a fleet stands under it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from dwcp_migrate.agent.http.handlers.placement import LEASE_S_MAX, PlacementHandlers
from dwcp_migrate.api.cluster import HeldLease, InFlightMigration, PlacementConstraints
from dwcp_migrate.config import CoordinationConfig
from dwcp_migrate.errors import ConfigError, CoordinationError, PlacementError
from dwcp_migrate.orchestration.fleet_constraints import constrain_fleet, fleet_for_placement, limit_policy
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Rule as PlacementRule
from dwcp_migrate.placement.planner import plan_drain, plan_migrate, plan_rebalance
from dwcp_migrate.state.fleet.commands import Propose, PutDomain
from dwcp_migrate.state.fleet.model import RULE_NAMES_MAX, HostCapacity, Limits, RuleRecord
from dwcp_migrate.state.fleet.model import HostRecord as Known
from tests.agent.authorization.world import UUID, World, world_of
from tests.placement.fleets import domain, fleet, host

Said = Callable[..., Awaitable[msgspec.Struct]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(tmp_path, CoordinationConfig(voters=("a", "b", "c"))) as made:
        yield made


def asked(world: World, name: str, path: str, body: bytes = b"", /, **query: str) -> Awaitable[msgspec.Struct]:
    return PlacementHandlers(world.hosts[name].coordination).changes()[path](query, body)


async def constraints_of(world: World, name: str) -> PlacementConstraints:
    return await PlacementHandlers(world.hosts[name].coordination).read_constraints()


async def test_rules_are_one_set_for_all_hosts(world: World) -> None:
    rule = PlacementRule(name="web", kind="spread", domains=["x", "y"], level="rack", hard=False, weight=2.0)
    await asked(world, "a", "rules/put", msgspec.json.encode(rule))
    found = (await constraints_of(world, "b")).rules
    assert msgspec.convert(msgspec.to_builtins(found), list[PlacementRule]) == [rule]
    await asked(world, "c", "rules/remove", name="web")
    assert (await constraints_of(world, "a")).rules == []


@pytest.mark.parametrize("more", [0, 1])
async def test_a_rule_has_so_many_domains_at_most(world: World, more: int) -> None:
    body = msgspec.json.encode(
        {"name": "r", "kind": "apart", "domains": [f"d{number}" for number in range(RULE_NAMES_MAX + more)]}
    )
    if more:
        with pytest.raises(ConfigError, match="length <= 256"):
            await asked(world, "a", "rules/put", body)
    else:
        await asked(world, "a", "rules/put", body)
        assert len((await constraints_of(world, "a")).rules[0].domains) == RULE_NAMES_MAX


async def test_a_rule_larger_than_a_command_is_refused(world: World) -> None:
    names = [f"{number:0256}" for number in range(RULE_NAMES_MAX)]
    body = msgspec.json.encode(RuleRecord(name="r", kind="pin", domains=names, zones=names))
    with pytest.raises(ConfigError, match="command of"):
        await asked(world, "a", "rules/put", body)


async def test_one_host_carries_out_and_the_second_is_told_which(world: World) -> None:
    held = cast("HeldLease", await asked(world, "a", "locks/acquire", name="placement", lifetime_s="60"))
    with pytest.raises(CoordinationError, match="a holds the lease placement"):
        await asked(world, "b", "locks/acquire", name="placement", lifetime_s="60")
    again = cast("HeldLease", await asked(world, "a", "locks/acquire", name="placement", lifetime_s="60"))
    assert again.token == held.token
    with pytest.raises(CoordinationError, match="no say"):
        await asked(world, "b", "locks/release", name="placement", token=str(held.token))
    await asked(world, "a", "locks/release", name="placement", token=str(held.token))
    await asked(world, "b", "locks/acquire", name="placement", lifetime_s="60")


async def test_a_lease_ends_by_itself(world: World) -> None:
    await asked(world, "a", "locks/acquire", name="placement", lifetime_s="60")
    world.now += 61
    await asked(world, "b", "locks/acquire", name="placement", lifetime_s="60")


@pytest.mark.parametrize("lifetime_s", ["0", "nan", "soon", "", f"{LEASE_S_MAX + 1}"])
async def test_what_is_no_lifetime_is_refused(world: World, lifetime_s: str) -> None:
    with pytest.raises(ConfigError, match="lifetime_s"):
        await asked(world, "a", "locks/acquire", name="placement", lifetime_s=lifetime_s)
    await asked(world, "a", "locks/acquire", name="placement", lifetime_s=f"{LEASE_S_MAX}")


async def test_a_host_is_marked_by_another_and_freed(world: World) -> None:
    await asked(world, "a", "cluster/drain", name="b")
    assert (await constraints_of(world, "c")).draining == ["b"]
    await asked(world, "c", "cluster/undrain", name="b")
    assert (await constraints_of(world, "a")).draining == []
    assert "does not know" in str(await asked(world, "a", "cluster/drain", name="ghost"))


async def test_tickets_are_flights_until_they_end_or_expire(world: World) -> None:
    coordination = world.hosts["a"].coordination
    await coordination.submit(PutDomain(uuid=UUID, name="web1"))
    await coordination.submit(Propose(uuid=UUID, source="a", destination="b", lifetime_s=60))
    assert (await constraints_of(world, "c")).flights == [InFlightMigration(domain="web1", source="a", destination="b")]
    world.now += 61
    await asked(world, "a", "cluster/undrain", name="a")  # it brings the time
    assert (await constraints_of(world, "c")).flights == []


async def test_an_old_answer_is_said_to_be_one(world: World) -> None:
    world.hosts["a"].engine.has_quorum = False
    assert not (await constraints_of(world, "a")).is_fresh
    assert (await constraints_of(world, "b")).is_fresh


FLEET = fleet([host("a"), host("b"), host("c")], [domain(f"x{number}", "a", vcpus=2) for number in range(6)])


def test_a_host_that_drains_takes_nothing_and_keeps_what_it_has() -> None:
    closed = PlacementConstraints(is_fresh=True, draining=["b", "elsewhere"])
    kept = msgspec.structs.replace(FLEET, domains=[*FLEET.domains, domain("y", "b")])
    for plan in (plan_rebalance(constrain_fleet(kept, closed)), plan_drain(constrain_fleet(kept, closed), "a")):
        assert plan.steps
        assert {step.destination for step in plan.steps} == {"c"}
        assert plan.left == []
    with pytest.raises(PlacementError, match="b does not take x0"):
        plan_migrate(constrain_fleet(kept, closed), "x0", "b")
    assert [one.name for one in fleet_for_placement(kept, closed).hosts if one.state == "maintenance"] == ["b"]


def test_a_domain_with_a_ticket_counts_on_both_hosts_and_stays_out_of_plans() -> None:
    flights = [
        InFlightMigration(domain="x0", source="a", destination="b"),
        InFlightMigration(domain="x1", source="c", destination="a"),
    ]
    found = {
        one.name: one for one in constrain_fleet(FLEET, PlacementConstraints(is_fresh=True, flights=flights)).domains
    }
    assert (found["x0"].arriving, found["x0"].movable) == ("b", False)
    assert (found["x1"].arriving, found["x1"].movable) == ("", False)  # it has arrived; the ticket is not closed yet
    assert (found["x2"].arriving, found["x2"].movable) == ("", True)
    plan = plan_rebalance(constrain_fleet(FLEET, PlacementConstraints(is_fresh=True, flights=flights)))
    assert not {"x0", "x1"} & {step.domain for step in plan.steps}


def test_the_fleets_rules_hold_instead_of_the_files() -> None:
    old = msgspec.structs.replace(FLEET, rules=[PlacementRule(name="old", kind="apart", domains=["x0", "x1"])])
    rules = [RuleRecord(name="r", kind="pin", domains=["x0", "gone"], zones=["a"]), RuleRecord(name="s", kind="apart")]
    found = constrain_fleet(old, PlacementConstraints(is_fresh=True, rules=rules))
    assert found.rules == [RuleRecord(name="r", kind="pin", domains=["x0"], zones=["a"])]
    with pytest.raises(PlacementError, match="names ghost"):
        constrain_fleet(
            old,
            PlacementConstraints(
                is_fresh=True, rules=[RuleRecord(name="r", kind="pin", domains=["x0"], zones=["ghost"])]
            ),
        )


def test_limits_of_the_fleet_bound_the_policy() -> None:
    flights = [InFlightMigration(domain="", source="a", destination="b")] * 3
    policy = PlacementPolicy(running_max=5, outgoing_max=2, incoming_max=2)
    for limits, running, outgoing in (
        (Limits(), 5, 2),
        (Limits(fleet=5, outgoing=1), 2, 1),
        (Limits(fleet=3, outgoing=0), 1, 2),
    ):
        found = limit_policy(policy, PlacementConstraints(is_fresh=True, flights=flights, limits=limits))
        assert (found.running_max, found.outgoing_max, found.incoming_max) == (running, outgoing, 2)


async def test_a_share_of_a_link_is_reserved_within_its_limit_and_given_back(world: World) -> None:
    await asked(world, "a", "cluster/limits", msgspec.json.encode(Limits(link_bytes_per_s={"a>b": 100})))
    share = {"source": "a", "destination": "b", "lifetime_s": "60"}
    held = cast("HeldLease", await asked(world, "a", "locks/reserve", name="one", bytes_per_s="70", **share))
    with pytest.raises(CoordinationError, match="link"):
        await asked(world, "c", "locks/reserve", name="two", bytes_per_s="31", **share)
    await asked(world, "a", "locks/unreserve", name="one", token=str(held.token))
    await asked(world, "c", "locks/reserve", name="two", bytes_per_s="100", **share)


async def test_limits_that_cannot_be_read_are_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="limits"):
        await asked(world, "a", "cluster/limits", b'{"fleet": -1}')
    await asked(world, "a", "cluster/limits", b'{"fleet": 3}')
    assert (await constraints_of(world, "b")).limits.fleet == 3


def test_a_host_stands_where_its_labels_say_and_offers_what_it_says() -> None:
    one = msgspec.structs.replace(host("a"), rack="", capacity={"vcpus": 32.0, "memory_mib": 1024.0})
    known = Known(name="a", labels={"rack": "r7", "region": "eu"}, capacity=HostCapacity(cpus=8))
    found = constrain_fleet(fleet([one], []), PlacementConstraints(is_fresh=True, hosts=[known])).hosts[0]
    assert (found.rack, found.region) == ("r7", "eu")
    assert found.capacity == {"vcpus": 8.0, "memory_mib": 1024.0}
    placed = msgspec.structs.replace(one, rack="r1")
    assert (
        constrain_fleet(fleet([placed], []), PlacementConstraints(is_fresh=True, hosts=[known])).hosts[0].rack == "r1"
    )


@pytest.mark.parametrize(
    ("take", "give", "more", "what"),
    [
        ("locks/acquire", "locks/release", {}, "the lease night"),
        (
            "locks/reserve",
            "locks/unreserve",
            {"source": "a", "destination": "b", "bytes_per_s": "1000"},
            "the share night",
        ),
    ],
)
async def test_what_is_held_with_another_token_is_not_said_to_be_given_back(
    world: World, take: str, give: str, more: dict[str, str], what: str
) -> None:
    held = cast("HeldLease", await asked(world, "a", take, name="night", lifetime_s="60", **more))
    for wrong in (held.token - 1, held.token + 1):
        with pytest.raises(CoordinationError, match=f"{what} is not held with the token {wrong}, but by a with"):
            await asked(world, "a", give, name="night", token=str(wrong))
    await asked(world, "a", give, name="night", token=str(held.token))
    await asked(world, "a", give, name="night", token=str(held.token))  # what nobody holds is free
    assert cast("HeldLease", await asked(world, "b", take, name="night", lifetime_s="60", **more)).token > held.token
