"""Hosts that are hot for long, and what is done about them."""

from typing import Any

import numpy as np
import pytest

from bench.fleets.month import Month
from dwcp_migrate.placement.contention import due_hosts, hot_since, levels_by_use, plan_relief
from dwcp_migrate.placement.fleet import Domain, Fleet, Host, Rule
from dwcp_migrate.placement.watch_settings import WatchSettings, in_window, parse_window

CPU = ("cpu_used",)
ON = WatchSettings(mode="on")


def fleet(cores: dict[str, list[float]], **more: Any) -> Fleet:
    """Hosts of ten cores whose domains use so many each."""
    hosts = [Host(name=name, capacity={"vcpus": 10, "memory_mib": 1e5, "cpu_used": 10}) for name in cores]
    domains = [
        Domain(name=f"{host}-{number}", host=host, demand={"vcpus": 1, "memory_mib": 1024}, load={"cpu_used": used})
        for host, there in cores.items()
        for number, used in enumerate(there)
    ]
    return Fleet(hosts=hosts, domains=domains, **more)


def test_a_host_is_due_only_once_it_was_hot_without_a_break() -> None:
    since: dict[str, float] = {}
    for at, level in ((0.0, 0.9), (300.0, 0.9), (600.0, 0.7), (900.0, 0.9), (1500.0, 0.9)):
        since = hot_since(since, {"hv1": level, "hv2": 0.5}, ON, at)
        assert due_hosts(since, ON, at) == []
    assert due_hosts(hot_since(since, {"hv1": 0.9}, ON, 1800.0), ON, 1800.0) == ["hv1"]
    assert hot_since(since, {}, ON, 2000.0) == {}  # a host that told nothing is not hot


def test_at_the_threshold_a_host_is_not_hot_and_past_it_it_is() -> None:
    assert hot_since({}, {"hv1": ON.threshold}, ON, 0.0) == {}
    assert hot_since({}, {"hv1": ON.threshold + 1e-9}, ON, 0.0) == {"hv1": 0.0}


def test_a_hot_host_gives_up_few_domains_and_no_other_gets_hot() -> None:
    found = fleet({"hv1": [3, 3, 3], "hv2": [2, 2], "hv3": [1]})
    plan = plan_relief(found, ["hv1"], [], ON, CPU)
    assert [(step.source, step.destination) for step in plan.steps] == [("hv1", "hv3")]
    assert levels_by_use(found, CPU)["hv1"] == pytest.approx(0.9)


def test_where_no_host_would_stay_cool_nothing_moves() -> None:
    assert plan_relief(fleet({"hv1": [3, 3, 3], "hv2": [3, 3], "hv3": [3, 2.5]}), ["hv1"], [], ON, CPU).steps == []


def test_who_moved_lately_stays_and_a_rule_is_kept() -> None:
    found = fleet({"hv1": [4.5, 4.5], "hv2": [1]})
    assert plan_relief(found, ["hv1"], ["hv1-0", "hv1-1"], ON, CPU).steps == []
    apart = Rule(name="apart", kind="apart", domains=["hv1-0", "hv2-0"])
    plan = plan_relief(fleet({"hv1": [4.5, 4.5], "hv2": [1]}, rules=[apart]), ["hv1"], [], ON, CPU)
    assert [step.domain for step in plan.steps] == ["hv1-1"]


def test_a_move_that_lowers_too_little_is_not_made() -> None:
    found = fleet({"hv1": [8.5, 0.2], "hv2": [1]})
    assert [step.domain for step in plan_relief(found, ["hv1"], [], ON, CPU).steps if step.domain == "hv1-1"] == []


def test_no_more_moves_than_a_round_may_have() -> None:
    found = fleet({"hv1": [1.0] * 10, "hv2": [], "hv3": []})
    settings = WatchSettings(mode="on", moves_max=2)
    assert len(plan_relief(found, ["hv1"], [], settings, CPU).steps) == 2


@pytest.mark.parametrize(("weekday", "minute", "holds"), [
    (0, 22 * 60, True), (1, 5 * 60 + 59, True), (1, 6 * 60, False), (5, 60, True), (5, 23 * 60, False), (6, 60, False),
])  # fmt: skip
def test_a_window_past_midnight_belongs_to_the_day_on_which_it_began(weekday: int, minute: int, holds: bool) -> None:  # noqa: FBT001
    assert in_window(["mon-fri 22:00-06:00"], weekday, minute) is holds
    assert in_window([], weekday, minute)


@pytest.mark.parametrize(
    "text", ["", "mon", "22:00-06:00", "mon 22-06", "mon 22:00", "mon-fri 25:00-26:00", "mon 10:70-11:00"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no window"):
        parse_window(text)


def test_days_of_a_simulated_fleet_break_no_rule_and_move_nobody_twice_within_the_cool_down() -> None:
    month = Month(np.random.default_rng(14), hosts=12, guests=180, days=2)
    alone, watched = month.run(None), month.run(ON)
    assert watched.broken == 0
    assert watched.early == 0
    assert watched.hot_s < alone.hot_s
    assert 0 < watched.moves / 2 <= 60
