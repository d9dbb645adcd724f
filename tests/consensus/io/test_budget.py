"""What a peer may make a replica check."""

import pytest

from dwcp_migrate.consensus.io.budget import CHECKS_PER_S, CHECKS_SAVED_MAX, CheckBudget
from dwcp_migrate.consensus.pbft.model.messages import (
    Checkpoint,
    Message,
    NewView,
    Prepare,
    Request,
    StableCheckpoint,
    StableProof,
    ViewChange,
)

SIGNED = Request(b"body", b"", bytes(64))
CHANGE = ViewChange(b"body", bytes(64))


def passed(budget: CheckBudget, message: Message, now: float = 0.0) -> int:
    """Send the same message until it is dropped."""
    return next(count for count in range(10**5) if not budget.allows(message, now))


@pytest.mark.parametrize("members", [4, 31])
def test_so_many_signed_requests_pass_at_once_and_so_many_each_second(members: int) -> None:
    budget = CheckBudget(members, 0.0)
    squared = members * members
    assert passed(budget, SIGNED) == CHECKS_SAVED_MAX + 4 * squared
    assert passed(budget, SIGNED, 1.0) == CHECKS_PER_S + squared
    assert passed(budget, SIGNED, 1000.0) == CHECKS_SAVED_MAX + 4 * squared
    assert budget.dropped == 3


@pytest.mark.parametrize("members", [4, 31])
def test_what_costs_more_signatures_passes_less_often(members: int) -> None:
    room = CHECKS_SAVED_MAX + 4 * members * members
    proof = StableCheckpoint(StableProof(0, 0))
    for message, cost in (
        (Checkpoint(0, 1, bytes(32), bytes(64)), 1),
        (CHANGE, 1 + members),
        (NewView(0, 1, (CHANGE,) * members, bytes(64)), 1 + members * (1 + members)),
        (proof, members),
    ):
        assert passed(CheckBudget(members, 0.0), message) == room // cost


def test_what_is_not_signed_costs_nothing() -> None:
    budget = CheckBudget(4, 0.0)
    passed(budget, SIGNED)
    assert budget.allows(Prepare(0, 0, 1, bytes(32)), 0.0)
    assert budget.allows(Request(b"body", bytes(64)), 0.0)
