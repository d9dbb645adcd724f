"""Who decides: the whole table, and how an engine that failed comes back."""

from itertools import product

import pytest

from dwcp_migrate.agent.authorization.engine_choice import (
    EVENTS_MAX,
    PAUSE_DOUBLINGS_MAX,
    PAUSE_S,
    Engine,
    Health,
    Policy,
    choose,
)

BOTH = frozenset({Engine.RAFT, Engine.PBFT})
RAFT, PBFT, NONE = frozenset({Engine.RAFT}), frozenset({Engine.PBFT}), frozenset[Engine]()
ROWS = list(product(("xx", "xy"), ("auto", "pbft"), (BOTH, RAFT, PBFT, NONE)))


@pytest.mark.parametrize(
    ("trusts", "mode", "usable", "engine", "fallback"),
    [
        ("xx", "auto", BOTH, Engine.RAFT, False),
        ("xx", "auto", RAFT, Engine.RAFT, False),
        ("xx", "auto", PBFT, Engine.PBFT, True),
        ("xx", "auto", NONE, Engine.POINT_TO_POINT, True),
        ("xy", "auto", BOTH, Engine.PBFT, False),
        ("xy", "auto", PBFT, Engine.PBFT, False),
        ("xy", "auto", RAFT, Engine.POINT_TO_POINT, True),
        ("xy", "auto", NONE, Engine.POINT_TO_POINT, True),
        ("xx", "pbft", BOTH, Engine.PBFT, False),
        ("xx", "pbft", RAFT, Engine.POINT_TO_POINT, True),
        ("xx", "off", BOTH, Engine.POINT_TO_POINT, False),
        ("xy", "off", BOTH, Engine.POINT_TO_POINT, False),
    ],
)
def test_the_table(trusts: str, mode: str, usable: frozenset[Engine], engine: Engine, fallback: bool) -> None:  # noqa: FBT001 - a row of the table
    choice = choose(trusts[0], trusts[1], Policy(mode), usable)  # type: ignore[arg-type]
    assert (choice.engine, choice.fallback) == (engine, fallback)
    assert choice.reason


@pytest.mark.parametrize(("trusts", "mode", "usable"), ROWS)
def test_requiring_a_quorum_changes_point_to_point_into_a_refusal_and_nothing_else(
    trusts: str, mode: str, usable: frozenset[Engine]
) -> None:
    free = choose(trusts[0], trusts[1], Policy(mode), usable)  # type: ignore[arg-type]
    bound = choose(trusts[0], trusts[1], Policy(mode, require=True), usable)  # type: ignore[arg-type]
    if free.engine is Engine.POINT_TO_POINT:
        assert bound.engine is Engine.REFUSED
    else:
        assert bound == free


def test_raft_never_stands_in_across_trust_domains() -> None:
    for mode, require, usable in product(("auto", "pbft"), (False, True), (BOTH, RAFT, PBFT, NONE)):
        choice = choose("x", "y", Policy(mode, require), usable)  # type: ignore[arg-type]
        assert choice.engine is not Engine.RAFT


def test_a_failed_engine_is_left_alone_for_a_pause_that_doubles() -> None:
    health = Health(BOTH)
    now = 0.0
    for failures in range(PAUSE_DOUBLINGS_MAX + 3):
        assert Engine.RAFT in health.usable(now)
        health.failed(Engine.RAFT, "no leader", now)
        pause = PAUSE_S * 2 ** min(failures, PAUSE_DOUBLINGS_MAX)
        assert health.usable(now + pause - 0.001) == PBFT
        now += pause
    assert len(health.events) == 1


def test_what_works_again_is_used_again_and_both_are_recorded() -> None:
    health = Health(BOTH)
    health.failed(Engine.PBFT, "no quorum", 10.0)
    health.worked(Engine.PBFT, 20.0)
    health.worked(Engine.PBFT, 30.0)
    assert [(event.at_s, event.engine, event.usable, event.reason) for event in health.events] == [
        (10.0, Engine.PBFT, False, "no quorum"),
        (20.0, Engine.PBFT, True, "it decided again"),
    ]
    assert health.usable(20.0) == BOTH


def test_an_engine_that_is_not_configured_is_never_usable() -> None:
    health = Health(RAFT)
    health.worked(Engine.PBFT, 0.0)
    assert health.usable(100.0) == RAFT


def test_the_record_of_changes_has_an_end() -> None:
    health = Health(BOTH)
    for at in range(EVENTS_MAX):
        health.failed(Engine.RAFT, "flapping", float(at))
        health.worked(Engine.RAFT, float(at))
    assert len(health.events) == EVENTS_MAX
