"""Who decides: the whole table, and how an engine that failed comes back."""

from itertools import product

import pytest

from dwcp_migrate.agent.authorization.engine_choice import (
    EVENTS_MAX,
    PAUSE_DOUBLINGS_MAX,
    PAUSE_S,
    EngineHealth,
    EngineName,
    EnginePolicy,
    choose,
)

BOTH = frozenset({EngineName.RAFT, EngineName.PBFT})
RAFT, PBFT, NONE = frozenset({EngineName.RAFT}), frozenset({EngineName.PBFT}), frozenset[EngineName]()
ROWS = list(product(("xx", "xy"), ("auto", "pbft"), (BOTH, RAFT, PBFT, NONE)))


@pytest.mark.parametrize(
    ("trusts", "mode", "usable", "engine", "fallback"),
    [
        ("xx", "auto", BOTH, EngineName.RAFT, False),
        ("xx", "auto", RAFT, EngineName.RAFT, False),
        ("xx", "auto", PBFT, EngineName.PBFT, True),
        ("xx", "auto", NONE, EngineName.POINT_TO_POINT, True),
        ("xy", "auto", BOTH, EngineName.PBFT, False),
        ("xy", "auto", PBFT, EngineName.PBFT, False),
        ("xy", "auto", RAFT, EngineName.POINT_TO_POINT, True),
        ("xy", "auto", NONE, EngineName.POINT_TO_POINT, True),
        ("xx", "pbft", BOTH, EngineName.PBFT, False),
        ("xx", "pbft", RAFT, EngineName.POINT_TO_POINT, True),
        ("xx", "off", BOTH, EngineName.POINT_TO_POINT, False),
        ("xy", "off", BOTH, EngineName.POINT_TO_POINT, False),
    ],
)
def test_the_table(trusts: str, mode: str, usable: frozenset[EngineName], engine: EngineName, fallback: bool) -> None:  # noqa: FBT001 - a row of the table
    choice = choose(trusts[0], trusts[1], EnginePolicy(mode), usable)  # type: ignore[arg-type]
    assert (choice.engine, choice.fallback) == (engine, fallback)
    assert choice.reason


@pytest.mark.parametrize(("trusts", "mode", "usable"), ROWS)
def test_requiring_a_quorum_changes_point_to_point_into_a_refusal_and_nothing_else(
    trusts: str, mode: str, usable: frozenset[EngineName]
) -> None:
    free = choose(trusts[0], trusts[1], EnginePolicy(mode), usable)  # type: ignore[arg-type]
    bound = choose(trusts[0], trusts[1], EnginePolicy(mode, require=True), usable)  # type: ignore[arg-type]
    if free.engine is EngineName.POINT_TO_POINT:
        assert bound.engine is EngineName.REFUSED
    else:
        assert bound == free


def test_raft_never_stands_in_across_trust_domains() -> None:
    for mode, require, usable in product(("auto", "pbft"), (False, True), (BOTH, RAFT, PBFT, NONE)):
        choice = choose("x", "y", EnginePolicy(mode, require), usable)  # type: ignore[arg-type]
        assert choice.engine is not EngineName.RAFT


def test_a_failed_engine_is_left_alone_for_a_pause_that_doubles() -> None:
    health = EngineHealth(BOTH)
    now = 0.0
    for failures in range(PAUSE_DOUBLINGS_MAX + 3):
        assert EngineName.RAFT in health.usable(now)
        health.failed(EngineName.RAFT, "no leader", now)
        pause = PAUSE_S * 2 ** min(failures, PAUSE_DOUBLINGS_MAX)
        assert health.usable(now + pause - 0.001) == PBFT
        now += pause
    assert len(health.events) == 1


def test_what_works_again_is_used_again_and_both_are_recorded() -> None:
    health = EngineHealth(BOTH)
    health.failed(EngineName.PBFT, "no quorum", 10.0)
    health.worked(EngineName.PBFT, 20.0)
    health.worked(EngineName.PBFT, 30.0)
    assert [(event.at_s, event.engine, event.usable, event.reason) for event in health.events] == [
        (10.0, EngineName.PBFT, False, "no quorum"),
        (20.0, EngineName.PBFT, True, "it decided again"),
    ]
    assert health.usable(20.0) == BOTH


def test_an_engine_that_is_not_configured_is_never_usable() -> None:
    health = EngineHealth(RAFT)
    health.worked(EngineName.PBFT, 0.0)
    assert health.usable(100.0) == RAFT


def test_the_record_of_changes_has_an_end() -> None:
    health = EngineHealth(BOTH)
    for at in range(EVENTS_MAX):
        health.failed(EngineName.RAFT, "flapping", float(at))
        health.worked(EngineName.RAFT, float(at))
    assert len(health.events) == EVENTS_MAX
