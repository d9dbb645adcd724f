"""Named registers as a replicated application: read, write, compare and swap. For histories of real processes."""

import msgspec

from dwcp_migrate.consensus import Context
from tests.linearizability.checker import REGISTER


class Registers:
    """Operations are msgpack lists: name, action, arguments; answers as the checker's model gives them."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def apply(self, operation: bytes, context: Context) -> bytes:
        del context
        name, *action = msgspec.msgpack.decode(operation, type=list[str])
        result, self._values[name] = REGISTER.step(tuple(action), self._values.get(name, ""))
        return str(result).encode()

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(dict(sorted(self._values.items())))

    def restore(self, data: bytes) -> None:
        self._values = msgspec.msgpack.decode(data, type=dict[str, str])


def encode(name: str, action: tuple[str, ...]) -> bytes:
    return msgspec.msgpack.encode([name, *action])
