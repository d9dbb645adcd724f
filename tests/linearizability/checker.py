"""Is a history of operations on real processes linearizable? Wing and Gong's search with Lowe's memory, own and small.

Rule: each operation takes effect at one instant between its call and its return. One without a known answer may have
taken effect at any time after its call, or never. The search tries, of the operations whose call precedes every return
that is still open, one after the other; what was tried with the same operations done and the same state is not tried
again (G. Lowe, Testing for linearizability, 2017). Histories are checked key by key: each must have an order.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Final, Generic, TypeVar

State = TypeVar("State", bound=Hashable)

UNKNOWN: Final = object()
"""The answer of an operation that got none."""


@dataclass(frozen=True)
class Operation:
    """One operation of one client.

    Attributes:
        key: what it is about; operations on different keys do not touch each other.
        action: what was asked.
        result: what was answered, or UNKNOWN.
        called: when it was asked, on a clock that all clients share.
        returned: when the answer came; infinite if none did.
    """

    key: Hashable
    action: Hashable
    result: object
    called: float
    returned: float = inf


@dataclass(frozen=True)
class Model(Generic[State]):
    """A sequential specification.

    Attributes:
        initial: state of a key that nobody has touched.
        step: action and state to result and next state.
    """

    initial: State
    step: Callable[[Hashable, State], tuple[object, State]]


class _Entry:
    """A call or a return in the list of what is still to be placed."""

    __slots__ = ("after", "before", "index", "matching")

    def __init__(self, index: int) -> None:
        self.index = index
        self.matching: _Entry | None = None
        self.before: _Entry
        self.after: _Entry | None = None


def check(history: Iterable[Operation], model: Model[State]) -> list[Operation] | None:
    """Find a key whose operations have no order.

    Returns:
        That key's operations by time of call; None if the history is linearizable.
    """
    by_key: dict[Hashable, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    for operations in by_key.values():
        operations.sort(key=lambda operation: operation.called)
        if not _is_linearizable(operations, model):
            return operations
    return None


def _is_linearizable(operations: list[Operation], model: Model[State]) -> bool:
    head = _link(operations)
    needed = sum(1 << at for at, operation in enumerate(operations) if operation.result is not UNKNOWN)
    state, done = model.initial, 0
    tried: set[tuple[int, State]] = set()
    path: list[tuple[_Entry, State]] = []
    entry = head.after
    while done & needed != needed:
        if entry is not None and entry.matching is not None:
            operation = operations[entry.index]
            result, after = model.step(operation.action, state)
            now = done | 1 << entry.index
            if operation.result in (UNKNOWN, result) and (now, after) not in tried:
                tried.add((now, after))
                path.append((entry, state))
                state, done = after, now
                _lift(entry)
                entry = head.after
            else:
                entry = entry.after
            continue
        if not path:
            return False
        entry, state = path.pop()
        done &= ~(1 << entry.index)
        _unlift(entry)
        entry = entry.after
    return True


def _link(operations: list[Operation]) -> _Entry:
    """Make the list: calls and returns by time, a call before a return of the same instant."""
    head = _Entry(-1)
    timed: list[tuple[float, int, _Entry]] = []
    for index, operation in enumerate(operations):
        call, end = _Entry(index), _Entry(index)
        call.matching = end
        timed += [(operation.called, 0, call), (operation.returned, 1, end)]
    last = head
    for _, _, entry in sorted(timed, key=lambda item: item[:2]):
        last.after, entry.before = entry, last
        last = entry
    return head


def _lift(call: _Entry) -> None:
    assert call.matching is not None, "only calls are lifted"
    for entry in (call, call.matching):
        entry.before.after = entry.after
        if entry.after is not None:
            entry.after.before = entry.before


def _unlift(call: _Entry) -> None:
    assert call.matching is not None, "only calls are lifted"
    for entry in (call.matching, call):
        entry.before.after = entry
        if entry.after is not None:
            entry.after.before = entry


def _register(action: Hashable, state: str) -> tuple[object, str]:
    match action:
        case ("read",):
            return state, state
        case ("write", value):
            return "", str(value)
        case ("swap", expected, value):
            return (state, str(value)) if state == expected else (state, state)
    raise ValueError(f"no action of a register: {action}")


REGISTER: Final = Model("", _register)
"""Read, write, compare and swap (answers what was there before)."""
