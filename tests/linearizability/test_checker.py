"""The checker: known histories, and a naive one that tries every order."""

import random
import time
from itertools import permutations

import pytest

from tests.linearizability.checker import REGISTER, UNKNOWN, Operation, check


def op(action: tuple[str, ...], result: object, called: float, returned: float = float("inf")) -> Operation:
    return Operation("k", action, result, called, returned)


GOOD = {
    "in order": [op(("write", "a"), "", 0, 1), op(("read",), "a", 2, 3)],
    "a read beside a write sees the old value": [op(("write", "a"), "", 0, 3), op(("read",), "", 1, 2)],
    "a read beside a write sees the new value": [op(("write", "a"), "", 0, 3), op(("read",), "a", 1, 2)],
    "a write without an answer took effect late": [
        op(("write", "a"), UNKNOWN, 0),
        op(("read",), "", 1, 2),
        op(("read",), "a", 3, 4),
    ],
    "a write without an answer never took effect": [op(("write", "a"), UNKNOWN, 0), op(("read",), "", 1, 2)],
    "one of two swaps wins": [op(("swap", "", "a"), "", 0, 3), op(("swap", "", "b"), "a", 1, 2)],
}
BAD = {
    "a read of what was overwritten": [
        op(("write", "a"), "", 0, 1),
        op(("write", "b"), "", 2, 3),
        op(("read",), "a", 4, 5),
    ],
    "a read of what nobody wrote": [op(("read",), "x", 0, 1)],
    "new, then old": [
        op(("write", "a"), "", 0, 9),
        op(("read",), "a", 1, 2),
        op(("read",), "", 3, 4),
    ],
    "a write without an answer, then gone again": [
        op(("write", "a"), UNKNOWN, 0),
        op(("read",), "a", 1, 2),
        op(("read",), "", 3, 4),
    ],
    "two swaps win": [op(("swap", "", "a"), "", 0, 3), op(("swap", "", "b"), "", 1, 2)],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=list(GOOD))
def test_a_good_history_is_accepted(history: list[Operation]) -> None:
    assert check(history, REGISTER) is None


@pytest.mark.parametrize("history", BAD.values(), ids=list(BAD))
def test_a_bad_history_is_refused(history: list[Operation]) -> None:
    assert check(history, REGISTER) == history


def test_keys_are_judged_apart() -> None:
    other = Operation("other", ("read",), "nothing wrote this", 0, 1)
    assert check([*GOOD["in order"], other], REGISTER) == [other]


def naive(history: list[Operation]) -> bool:
    """Try every order of every choice of unanswered operations."""
    answered = [o for o in history if o.result is not UNKNOWN]
    unknown = [o for o in history if o.result is UNKNOWN]
    for chosen in range(1 << len(unknown)):
        taken = answered + [o for at, o in enumerate(unknown) if chosen >> at & 1]
        for order in permutations(taken):
            if any(b.returned < a.called for at, a in enumerate(order) for b in order[at + 1 :]):
                continue
            state = REGISTER.initial
            for operation in order:
                result, state = REGISTER.step(operation.action, state)
                if operation.result not in (UNKNOWN, result):
                    break
            else:
                return True
    return False


def test_it_agrees_with_one_that_tries_every_order() -> None:
    rng = random.Random(7)
    verdicts = []
    for _ in range(400):
        history = []
        for _ in range(rng.randint(1, 5)):
            called = rng.random() * 4
            action = rng.choice([("read",), ("write", "a"), ("write", "b"), ("swap", "a", "b")])
            result = "" if action[0] == "write" else rng.choice(["", "a", "b"])
            if rng.random() < 0.2:
                history.append(op(action, UNKNOWN, called))
            else:
                history.append(op(action, result, called, called + rng.random() * 2))
        verdicts.append(naive(history))
        assert (check(history, REGISTER) is None) == verdicts[-1], history
    assert 100 < sum(verdicts) < 300


def test_a_long_history_of_many_clients_takes_seconds_at_most() -> None:
    rng = random.Random(2)
    state, history = "", []
    for at in range(3000):
        action = rng.choice([("read",), ("write", str(at))])
        result, state = REGISTER.step(action, state)
        history.append(op(action, result, at - rng.random() * 4, at + rng.random() * 4))
    began = time.process_time()
    assert check(history, REGISTER) is None
    assert time.process_time() - began < 20
