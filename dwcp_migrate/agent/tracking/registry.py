"""Registry of migrations: running records, totals since the start, and subscribers to changes.

The rule: records change only here, so that every reader of `/v1/events` sees each change and a migration that ended is
counted exactly once.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import asdict

from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.running_store import KeptMigration, RunningStore, SessionFacts
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import BUCKETS, AgentState, Totals, Update
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.protocol.worker import MigrationCounters

UPDATES_WAITING_MAX: Final = 1000
"""Updates that a reader may be behind; at two a second for each migration that is minutes."""

SUBSCRIBERS_MAX: Final = 32

_SUMMED: Final = (
    "unclassified_bytes",
    "aside_bytes",
    "plain_bytes",
    "resent_segments",
    "repaired_segments",
    "channels_lost",
    "link_losses",
)
_BY_ROLE: Final = ("raw_bytes", "wire_bytes", "reverse_bytes", "opaque_bytes")


Observer = Callable[[Migration | None, Migration], None]


class AmbiguousIdError(NotFoundError):
    """Several migrations begin with this id."""


class MigrationRegistry:
    """Running and ended migrations.

    Args:
        history: where ended ones go.
        now: the clock, seconds since the epoch.
        store: where running ones are kept for the next agent; None keeps none.
        disk: what `history` is written by, if not by itself: one that ended is kept until its line is written.
    """

    def __init__(
        self,
        history: MigrationHistory,
        now: Callable[[], float],
        store: RunningStore | None = None,
        disk: DiskThread | None = None,
    ) -> None:
        self._disk = disk
        self._history = history
        self._store = store
        self._facts: dict[str, SessionFacts] = {}
        self._over: set[str] = set()
        self._now = now
        self._running: dict[str, Migration] = {}
        self._ended: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {}
        self._duration_s: dict[str, float] = {}
        self._prediction_error = 0.0
        self._subscribers: set[asyncio.Queue[Update | None]] = set()
        self._observers: list[Observer] = []
        self.state: AgentState = "running"

    def observe(self, observer: Observer) -> None:
        """Call `observer` with a record as it was, None for a new one, and as it is now; it must not change any."""
        self._observers.append(observer)

    def running(self) -> list[Migration]:
        """Migrations that run, oldest first."""
        return list(self._running.values())

    def recent(self) -> list[Migration]:
        """Migrations that ended, newest first."""
        return self._history.recent()

    @property
    def history_error(self) -> str:
        """Reason for which the history cannot be written; empty when it can."""
        return self._history.error

    def find(self, prefix: str) -> Migration:
        """Find one, running or ended, by the beginning of its id.

        A migration that went to another agent of the same machine shares its id with the other side; the newest counts.

        Raises:
            NotFoundError: there is none.
            AmbiguousIdError: several match.
        """
        known = {record.id: record for record in reversed([*self.running(), *self.recent()])}
        matching = [record for identity, record in known.items() if prefix and identity.startswith(prefix.lower())]
        if not matching:
            raise NotFoundError(f"no migration {prefix!r}", hint="`dwcp-migrate history` lists those that ended")
        if len(matching) > 1:
            raise AmbiguousIdError(f"{len(matching)} migrations begin with {prefix!r}", hint="give more of the id")
        return matching[0]

    def get(self, identity: str) -> Migration | None:
        """A running migration's record."""
        return self._running.get(identity)

    def put(self, record: Migration) -> None:
        """Begin a record or replace it; one that has ended moves to the history and the totals."""
        before = self._running.get(record.id)
        if record.state == "ended":
            self._running.pop(record.id, None)
            self._count_ended(record)
            self._history.append(record)
            self._forget(record.id)
        else:
            self._running[record.id] = record
            if before is None or _essence(before) != _essence(record):
                self._keep(record)
        self._publish(Update(at=self._now(), state=self.state, migration=record))
        for observer in self._observers:
            observer(before, record)

    def discard(self, identity: str) -> None:
        """Drop a running record of what did not become a migration; it is counted nowhere."""
        self._running.pop(identity, None)
        self._forget(identity)
        self._publish(Update(at=self._now(), state=self.state))

    def _forget(self, identity: str) -> None:
        self._facts.pop(identity, None)
        self._over.discard(identity)
        if self._store is None:
            return
        if self._disk is None:
            self._store.forget(identity)
        else:
            self._disk.begin(partial(self._store.forget, identity))

    def predecessors(self) -> list[KeptMigration]:
        """Take over what the agent before this one left running, but for what it had just ended."""
        if self._store is None:
            return []
        ended = {(record.id, record.role) for record in self.recent()}
        found = []
        for kept in self._store.load():
            if (kept.record.id, kept.record.role) in ended:
                self._store.forget(kept.record.id)
                continue
            self._facts[kept.record.id] = kept.facts
            if kept.is_over:
                self._over.add(kept.record.id)
            self.put(kept.record)
            found.append(kept)
        return found

    def facts(self, identity: str) -> SessionFacts:
        """Facts of a running migration beside its record."""
        return self._facts.get(identity, SessionFacts())

    def learn(self, identity: str, facts: SessionFacts) -> None:
        """Keep facts of a running migration beside its record, for the next agent.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            facts: all of them; they replace earlier ones.
        """
        self._facts[identity] = facts
        if (record := self._running.get(identity)) is not None:
            self._keep(record)

    def is_over(self, identity: str) -> None:
        """Keep that a migration's data process said its last message."""
        self._over.add(identity)
        if (record := self._running.get(identity)) is not None:
            self._keep(record)

    def _keep(self, record: Migration) -> None:
        if self._store is not None:
            self._store.save(KeptMigration(record=record, facts=self.facts(record.id), is_over=record.id in self._over))

    def change(self, identity: str, change: Callable[[Migration], Migration]) -> None:
        """Change a running record; nothing happens to one that has ended.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            change: returns the new record.
        """
        record = self._running.get(identity)
        if record is not None and (changed := change(record)) is not record:
            self.put(changed)

    def count(self, table: str, key: str) -> None:
        """Add one to a map of `Totals`.

        Args:
            table: name of the map, as `passthrough`, `refused` or `rejected`.
            key: in the map, out of a fixed set.
        """
        self._counts.setdefault(table, Counter())[key] += 1

    def count_one(self, name: str) -> None:
        """Count one in a plain number of `Totals`."""
        self._ended[name] += 1

    def _count_ended(self, record: Migration) -> None:
        role = record.role
        self.count("migrations", f"{role} {record.result}")
        if not record.passthrough_reason:
            self.count("accelerated", role)
        self._duration_s[role] = self._duration_s.get(role, 0.0) + record.duration_s(record.ended_at)
        self._count_size("duration_seconds", record.duration_s(record.ended_at), role)
        self._count_prediction(record)
        if record.downtime_ms >= 0:
            self._count_size("downtime_seconds", record.downtime_ms / 1000, role)
            self.count("downtime_count", role)
            self._counts.setdefault("downtime_ms", Counter())[role] += record.downtime_ms
        _add(self._ended, self._counts, role, record.counters)

    def _count_prediction(self, record: Migration) -> None:
        """Hold what was predicted against what came."""
        if record.expected is None or record.result != "completed" or record.passthrough_reason:
            return
        low, median, high = record.expected.time_s
        actual = record.duration_s(record.ended_at)
        self.count("predictions", "inside" if low <= actual <= high else "outside")
        error = abs(actual / median - 1) if median > 0 else 0.0
        self._prediction_error += error
        self._count_size("prediction_error_ratio", error)

    def _count_size(self, name: str, size: float, *labels: str) -> None:
        bound = next((bound for bound in BUCKETS[name] if size <= bound), None)
        if bound is not None:
            self.count("buckets", " ".join((name, *labels, f"{bound:g}")))

    def totals(self) -> Totals:
        """Sum up everything since the agent started, running migrations included."""
        numbers = Counter(self._ended)
        maps = {name: Counter(counts) for name, counts in self._counts.items()}
        for record in self._running.values():
            _add(numbers, maps, record.role, record.counters)
        return msgspec.convert(
            {**maps, **numbers, "duration_s": self._duration_s, "prediction_error": self._prediction_error}, Totals
        )

    def set_state(self, state: AgentState) -> None:
        """Change the agent's state and tell it."""
        self.state = state
        self._publish(Update(at=self._now(), state=state))

    def subscribe(self) -> "asyncio.Queue[Update | None] | None":
        """Begin to hear of changes; None comes when the reader fell behind. No queue: `SUBSCRIBERS_MAX` are there."""
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            return None
        queue: asyncio.Queue[Update | None] = asyncio.Queue(UPDATES_WAITING_MAX)
        self._subscribers.add(queue)
        return queue

    def unsubscribe(self, queue: "asyncio.Queue[Update | None]") -> None:
        """Unsubscribe."""
        self._subscribers.discard(queue)

    def _publish(self, update: Update) -> None:
        for queue in list(self._subscribers):
            if queue.full():
                self._subscribers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(update)

    def close(self) -> None:
        """End all subscriptions."""
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        self._subscribers.clear()


def _essence(record: Migration) -> tuple[object, ...]:
    """The part of a running record that the next agent needs; rates and counters come anew."""
    last = record.events[-1] if record.events else None
    return record.state, record.uuid, record.reason, record.passthrough_reason, record.expected, last


def _add(numbers: Counter[str], maps: dict[str, Counter[str]], role: str, counters: MigrationCounters) -> None:
    """Add a migration's counters to the totals."""
    values = asdict(counters)
    for name in _SUMMED:
        numbers[name] += values[name]
    for name in _BY_ROLE:
        maps.setdefault(name, Counter())[role] += values[name]
    pages = maps.setdefault("pages", Counter())
    for kind, count in counters.pages.items():
        pages[f"{role} {kind}"] += count
    held_up_s = maps.setdefault("held_up_s", Counter())
    for stage, seconds in counters.held_up_s.items():
        held_up_s[stage] += seconds  # type: ignore[assignment]  # a counter of seconds
