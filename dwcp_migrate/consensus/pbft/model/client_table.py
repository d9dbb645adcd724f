"""Client table: the last request and reply of each client, so that each request is executed once.

Rule: the table is part of the replicated state. It changes only by execution, so it is the same on all replicas after
the same sequence number, travels with the state and decides alike everywhere what is new.

A client may have `CLIENT_WINDOW` requests on the way. A number that far behind its highest is refused without a result:
whether it was executed is no longer known, so it must not be executed now.
"""

from enum import Enum, auto
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.model.messages import Counter

CLIENT_WINDOW: Final = 128
"""Results kept for each client; with 64 requests on the way it may still lose half of the replies."""


class RequestOutcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Result of a request, and the place of its decision."""

    sequence: Counter
    result: bytes


class ClientProgress(Enum):
    """State of a request, as its number shows it."""

    NEW = auto()
    DONE = auto()
    STALE = auto()


_Rows = dict[str, dict[int, RequestOutcome]]


class ClientTable:
    """Results by client and number."""

    def __init__(self) -> None:
        self._rows: _Rows = {}
        self._highest: dict[str, int] = {}

    def progress_of(self, client: str, number: int) -> ClientProgress:
        """Tell whether a request is to be executed.

        Args:
            client: its name.
            number: of its request.
        """
        row = self._rows.get(client)
        if row is None:
            return ClientProgress.NEW
        if number in row:
            return ClientProgress.DONE
        return ClientProgress.STALE if number <= self._highest[client] - CLIENT_WINDOW else ClientProgress.NEW

    def highest(self, client: str) -> int:
        """Find a client's highest number that was executed; 0 if none was."""
        return self._highest.get(client, 0)

    def outcome(self, client: str, number: int) -> RequestOutcome | None:
        """Find the result of a request that was executed and is not forgotten.

        Args:
            client: its name.
            number: of its request.

        Returns:
            None if it was not executed, or longer ago than `CLIENT_WINDOW` requests.
        """
        return self._rows.get(client, {}).get(number)

    def record(self, client: str, number: int, outcome: RequestOutcome) -> None:
        """Keep the result of a request that was just executed; forget those that are too old.

        Args:
            client: its name.
            number: of its request, which is new (`progress_of`).
            outcome: the result.
        """
        row = self._rows.setdefault(client, {})
        row[number] = outcome
        highest = self._highest.get(client, number - 1)
        if number > highest:
            self._highest[client] = number
            for old in range(highest - CLIENT_WINDOW + 1, min(number - CLIENT_WINDOW, highest) + 1):
                row.pop(old, None)

    def forget(self, clients: set[str]) -> None:
        """Drop clients that are no longer members."""
        for client in clients:
            self._rows.pop(client, None)
            self._highest.pop(client, None)

    def dump(self) -> list[tuple[str, list[tuple[int, RequestOutcome]]]]:
        """List everything, in an order that is the same on all replicas."""
        return [(client, sorted(self._rows[client].items())) for client in sorted(self._rows)]

    @staticmethod
    def load(rows: list[tuple[str, list[tuple[int, RequestOutcome]]]]) -> "ClientTable":
        """Rebuild a table from `dump`."""
        table = ClientTable()
        for client, results in rows:
            table._rows[client] = dict(results)
            table._highest[client] = max(number for number, _ in results)
        return table


Dump = list[tuple[str, Annotated[list[tuple[Counter, RequestOutcome]], Meta(min_length=1, max_length=CLIENT_WINDOW)]]]
"""Type of `ClientTable.dump` as it is decoded: a row without a result does not occur."""
