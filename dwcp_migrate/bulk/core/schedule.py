"""Schedule of one fetch: which chunks are asked of whom (pure; time is an argument).

The hosts that fetch an object form a chain, in the order of their names: the first asks the host that has the whole
object, each other one the host before it. So the origin sends each byte once, a fetch costs one connection a host, and
nobody has to say what it has got: who is asked too early lets the question wait. With several origins there are as many
chains.

A source that lies or breaks is passed over: the next one up the chain is asked. Of one that is merely silent, a source
with nothing else to do is asked for the same after `STALL_S`; whichever answers first counts.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dwcp_migrate.bulk.core.chunking import CHUNK_BYTES_MAX
from dwcp_migrate.errors import LocalProtocolError
from dwcp_migrate.units import KIB, MIB

GROUP_BYTES_MIN: Final = 64 * KIB
"""Smaller requests cost more in turning around than in bytes."""
GROUP_BYTES_MAX: Final = 1 * MIB
"""Larger ones would keep the peers waiting for what is passed on. A single chunk may be larger."""
GROUPS_AIMED_AT: Final = 32
"""More would be passed on earlier, and cost a request each."""
SOURCES_MAX: Final = 16
"""Hosts that one fetch knows; each may cost a thread and `CHUNK_BYTES_MAX` of memory, and a chain is as long."""
STALL_S: Final = 1.0
"""Seconds of silence after which others are asked for the same; one that waits for its own part says so earlier."""
REFUSALS_MAX: Final = 64
"""Times in a row that a host which fetches the object itself may lack what it is asked for, after it has waited."""


@dataclass(frozen=True, slots=True)
class ChunkSource:
    """A host to ask.

    Attributes:
        name: of the host.
        has_all: it has the whole object; otherwise it fetches the object too.
    """

    name: str
    has_all: bool


@dataclass(frozen=True, slots=True)
class ChunkRun:
    """Neighbouring chunks of one group: the unit that is asked for.

    Attributes:
        first: number of the first chunk.
        count: of chunks.
        group: number of the group.
    """

    first: int
    count: int
    group: int


@dataclass(slots=True)
class _Asked:
    """State of one source."""

    source: ChunkSource
    due: deque[ChunkRun] = field(default_factory=deque)
    asked: list[ChunkRun] = field(default_factory=list)
    heard_at: float = 0.0
    refusals: int = 0
    fault: str = ""


def group_chunks(lengths: Sequence[int]) -> list[int]:
    """Divide chunks into groups of neighbours; returns each chunk's group. The same on every host."""
    size = min(GROUP_BYTES_MAX, max(GROUP_BYTES_MIN, sum(lengths) // GROUPS_AIMED_AT))
    groups: list[int] = []
    group, held = 0, 0
    for length in lengths:
        if held and held + length > size:
            group, held = group + 1, 0
        held += length
        groups.append(group)
    return groups


def missing_runs(lengths: Sequence[int], missing: Sequence[int]) -> list[ChunkRun]:
    """Gather what is missing into runs, none of which crosses a group.

    Args:
        lengths: of all chunks, in bytes.
        missing: numbers of chunks, ascending.
    """
    groups = group_chunks(lengths)
    runs: list[ChunkRun] = []
    for chunk in missing:
        last = runs[-1] if runs else None
        if last is not None and last.group == groups[chunk] and last.first + last.count == chunk:
            runs[-1] = ChunkRun(last.first, last.count + 1, last.group)
        else:
            runs.append(ChunkRun(chunk, 1, groups[chunk]))
    return runs


class FetchSchedule:
    """State of a fetch: sources, what each is asked for, and what is left.

    Args:
        lengths: of all chunks, in bytes.
        missing: numbers of the chunks that are missing here, ascending.
        own_name: this host's.
        sources: hosts to ask, at most `SOURCES_MAX`.
        now: monotonic seconds.

    Raises:
        LocalProtocolError: no source, too many, or a chunk that is too large.
    """

    def __init__(
        self, lengths: Sequence[int], missing: Sequence[int], own_name: str, sources: Sequence[ChunkSource], now: float
    ) -> None:
        if not 0 < len(sources) <= SOURCES_MAX or max(lengths, default=0) > CHUNK_BYTES_MAX:
            raise LocalProtocolError(f"{len(sources)} sources, at most {SOURCES_MAX}")
        self._asked = {source.name: _Asked(source, heard_at=now) for source in sources}
        self._left = dict.fromkeys(missing_runs(lengths, missing))
        chain = _chain_of(own_name, sources)
        self._above, self._origins = chain.above, chain.whole[chain.number :: chain.takers]
        for run in self._left:
            self._give(run)

    @property
    def is_done(self) -> bool:
        """Whether everything is here."""
        return not self._left

    @property
    def faults(self) -> dict[str, str]:
        """Sources that are not asked any more, and why."""
        return {name: found.fault for name, found in self._asked.items() if found.fault}

    @property
    def is_lost(self) -> bool:
        """Whether something is missing and nobody is left to ask."""
        return bool(self._left) and len(self.faults) == len(self._asked)

    def next_run(self, name: str, now: float) -> ChunkRun | None:
        """Choose what to ask a source for next, and count it as asked.

        Args:
            name: of the source.
            now: monotonic seconds.

        Returns:
            None where there is nothing for it now.
        """
        mine = self._asked[name]
        if mine.fault:
            return None
        while mine.due and mine.due[0] not in self._left:
            mine.due.popleft()
        run = mine.due.popleft() if mine.due else self._stalled(mine, now)
        if run is not None:
            if not mine.asked:
                mine.heard_at = now
            mine.asked.append(run)
        return run

    def _stalled(self, mine: _Asked, now: float) -> ChunkRun | None:
        """Something that another source is slow with; of a host that fetches itself only if none has the whole."""
        if not mine.source.has_all and self._whole():
            return None
        for other in self._asked.values():
            if other is mine or now - other.heard_at < STALL_S:
                continue
            for run in [*other.asked, *other.due]:
                if run in self._left and run not in mine.asked:
                    return run
        return None

    def is_left(self, run: ChunkRun) -> bool:
        """Whether a run is still missing."""
        return run in self._left

    def heard(self, name: str, at: float) -> None:
        """Note when bytes of a source came last: one that is slow, or held to a rate, is not silent.

        Args:
            name: of the source.
            at: monotonic seconds.
        """
        found = self._asked[name]
        found.heard_at = max(found.heard_at, at)

    def took(self, name: str, run: ChunkRun, now: float) -> None:
        """Note that a source delivered a run, verified.

        Args:
            name: of the source.
            run: as `next_run` returned it.
            now: monotonic seconds.
        """
        self._answered(name, run, now).refusals = 0
        self._left.pop(run, None)

    def refused(self, name: str, run: ChunkRun, now: float) -> None:
        """Note that a source does not have a run yet. It is asked again, `REFUSALS_MAX` times in a row.

        A host that was taken to have everything is not asked any more.

        Args:
            name: of the source.
            run: as `next_run` returned it.
            now: monotonic seconds.
        """
        found = self._answered(name, run, now)
        found.due.appendleft(run)
        found.refusals += 1
        if found.source.has_all or found.refusals >= REFUSALS_MAX:
            self.drop(name, "does not have it")

    def _answered(self, name: str, run: ChunkRun, now: float) -> _Asked:
        found = self._asked[name]
        found.heard_at = now
        if run in found.asked:
            found.asked.remove(run)
        return found

    def drop(self, name: str, fault: str) -> None:
        """Ask a source no more; what it was to bring is asked of others.

        Args:
            name: of the source.
            fault: why, for people.
        """
        found = self._asked[name]
        found.fault = found.fault or fault
        runs, found.due, found.asked = [*found.asked, *found.due], deque(), []
        for run in runs:
            if run in self._left:
                self._give(run)

    def _whole(self) -> list[str]:
        return [name for name, found in self._asked.items() if found.source.has_all and not found.fault]

    def _give(self, run: ChunkRun) -> None:
        """Have a run asked of the next host up the chain that is not given up, of any other where there is none."""
        for names in (self._above, self._origins, self._whole(), self._asked):
            alive = [name for name in names if not self._asked[name].fault]
            if alive:
                name = alive[0] if names is self._above else alive[run.group % len(alive)]
                self._asked[name].due.append(run)
                return


class _Chain(NamedTuple):
    """A host's place among those that fetch: hosts above it, the nearest first, and those that have the whole."""

    above: list[str]
    whole: list[str]
    takers: int
    number: int
    """Of the chain; there are as many as hosts that have the whole."""


def _chain_of(own_name: str, sources: Sequence[ChunkSource]) -> _Chain:
    takers = sorted({own_name, *(source.name for source in sources if not source.has_all)})
    whole = [source.name for source in sources if source.has_all]
    place, chains = takers.index(own_name), max(1, len(whole))
    above = [takers[other] for other in range(place - chains, -1, -chains)]
    return _Chain(above, whole, len(takers), place % chains)


def first_asked(own_name: str, sources: Sequence[ChunkSource]) -> list[str]:
    """Names of the sources in the order in which a host asks them for what is small, the list of chunks.

    Args:
        own_name: this host's.
        sources: of the fetch.
    """
    above, whole, _, number = _chain_of(own_name, sources)
    return list(dict.fromkeys([*above[:1], *whole[number:], *whole, *above, *(source.name for source in sources)]))
