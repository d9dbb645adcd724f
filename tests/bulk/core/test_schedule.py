"""Who is asked for what: shares, losses, stalls; and histories of any order that end with everything fetched once."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_migrate.bulk.core.chunking import CHUNK_BYTES_MAX
from dwcp_migrate.bulk.core.schedule import (
    GROUP_BYTES_MAX,
    GROUP_BYTES_MIN,
    REFUSALS_MAX,
    SOURCES_MAX,
    STALL_S,
    ChunkRun,
    ChunkSource,
    FetchSchedule,
    first_asked,
    group_chunks,
    missing_runs,
)
from dwcp_migrate.errors import LocalProtocolError

LENGTHS = [GROUP_BYTES_MIN] * 60
ORIGIN = ChunkSource("origin", has_all=True)
HOSTS = ["a", "b", "c", "d", "e", "f"]

SOURCES = {own: [ORIGIN, *(ChunkSource(name, has_all=False) for name in HOSTS if name != own)] for own in HOSTS}


def schedule_of(own: str, hosts: list[str] = HOSTS, missing: list[int] | None = None) -> FetchSchedule:
    others = [ChunkSource(name, has_all=False) for name in hosts if name != own]
    return FetchSchedule(LENGTHS, list(range(60)) if missing is None else missing, own, [ORIGIN, *others], 0.0)


def asked_of(schedule: FetchSchedule, name: str, now: float = 0.0) -> list[ChunkRun]:
    found = []
    while (run := schedule.next_run(name, now)) is not None:
        found.append(run)
    return found


def test_first_host_asks_the_origin_for_all_and_each_other_the_one_before_it() -> None:
    for own, above in zip(HOSTS, ["origin", *HOSTS], strict=False):
        schedule = schedule_of(own)
        assert first_asked(own, SOURCES[own])[0] == above
        assert [run.first for run in asked_of(schedule, above)] == list(range(60))
        rest = {"origin", *HOSTS} - {own, above}
        assert all(schedule.next_run(other, 0.0) is None for other in rest)


def test_two_origins_head_two_chains() -> None:
    second = ChunkSource("second", has_all=True)
    for own, above in {"a": "origin", "b": "second", "c": "a", "d": "b"}.items():
        others = [ChunkSource(name, has_all=False) for name in "abcd" if name != own]
        schedule = FetchSchedule(LENGTHS, range(60), own, [ORIGIN, second, *others], 0.0)
        assert len(asked_of(schedule, above)) == 60
        assert first_asked(own, [ORIGIN, second, *others])[0] == above


def test_two_origins_share_what_a_single_host_asks_for() -> None:
    second = ChunkSource("second", has_all=True)
    schedule = FetchSchedule(LENGTHS, range(60), "a", [ORIGIN, second], 0.0)
    assert (len(asked_of(schedule, "origin")), len(asked_of(schedule, "second"))) == (30, 30)


def test_groups_are_the_same_for_a_host_that_misses_little() -> None:
    whole = {run.first: run.group for run in missing_runs(LENGTHS, range(60))}
    assert all(whole[run.first] == run.group for run in missing_runs(LENGTHS, [3, 17, 18]))


def test_runs_join_neighbours_and_cross_no_group() -> None:
    lengths = [GROUP_BYTES_MIN // 4] * 10
    assert group_chunks(lengths) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert missing_runs(lengths, [0, 1, 3, 4, 5]) == [ChunkRun(0, 2, 0), ChunkRun(3, 1, 0), ChunkRun(4, 2, 1)]


def test_group_is_bounded_but_for_a_chunk_that_is_larger_alone() -> None:
    lengths = [GROUP_BYTES_MAX // 2] * 200 + [CHUNK_BYTES_MAX] * 2
    groups = group_chunks(lengths)
    assert (
        max(
            sum(length for length, found in zip(lengths, groups, strict=True) if found == group) for group in range(100)
        )
        == GROUP_BYTES_MAX
    )
    assert groups[-1] != groups[-2]


def test_chunk_past_its_limit_and_sources_past_theirs_are_refused() -> None:
    many = [ChunkSource(str(number), has_all=True) for number in range(SOURCES_MAX + 1)]
    FetchSchedule([CHUNK_BYTES_MAX], [0], "a", many[:-1], 0.0)
    for lengths, sources in (([1], many), ([1], []), ([CHUNK_BYTES_MAX + 1], many[:1])):
        with pytest.raises(LocalProtocolError):
            FetchSchedule(lengths, [0], "a", sources, 0.0)


def test_chain_is_closed_above_a_host_that_is_dropped() -> None:
    schedule = schedule_of("c")
    under_way = schedule.next_run("b", 0.0)
    schedule.drop("b", "lied")
    assert schedule.next_run("b", 0.0) is None
    rest = asked_of(schedule, "a")
    assert under_way in rest
    assert len(rest) == 60
    schedule.drop("a", "gone")
    assert len(asked_of(schedule, "origin")) == 60
    assert schedule.faults == {"a": "gone", "b": "lied"}


def test_chunks_of_a_lost_origin_are_asked_of_the_others_until_nobody_is_left() -> None:
    schedule = schedule_of("a", ["a", "b"])
    schedule.drop("origin", "gone")
    assert {run.first for run in asked_of(schedule, "b")} == set(range(60))
    assert not schedule.is_lost
    schedule.drop("b", "gone too")
    assert schedule.is_lost


def test_idle_origin_is_asked_for_what_a_silent_peer_owes_and_not_earlier() -> None:
    schedule = schedule_of("b", ["a", "b"])
    owed = schedule.next_run("a", 0.0)
    assert owed is not None
    assert schedule.next_run("origin", STALL_S - 0.01) is None
    assert schedule.next_run("origin", STALL_S) == owed
    schedule.took("origin", owed, STALL_S)
    assert not schedule.is_left(owed)


def test_source_whose_bytes_still_come_is_slow_and_not_silent() -> None:
    schedule = schedule_of("b", ["a", "b"])
    assert schedule.next_run("a", 0.0) is not None
    schedule.heard("a", 1.5)
    assert schedule.next_run("origin", 1.5 + STALL_S - 0.01) is None
    assert schedule.next_run("origin", 1.5 + STALL_S) is not None


@pytest.mark.parametrize("word", ["took", "refused"])
def test_peer_that_says_something_keeps_its_part(word: str) -> None:
    schedule = schedule_of("b", ["a", "b"])
    run = schedule.next_run("a", 0.0)
    assert run is not None
    getattr(schedule, word)("a", run, STALL_S)
    assert schedule.next_run("origin", STALL_S + 0.5) is None


def test_peer_that_lacks_a_run_is_asked_again_up_to_the_limit() -> None:
    schedule = schedule_of("b", ["a", "b"])
    for number in range(REFUSALS_MAX):
        assert not schedule.faults, number
        run = schedule.next_run("a", 0.0)
        assert run is not None
        assert run.first == 0
        schedule.refused("a", run, 0.0)
    assert schedule.faults == {"a": "does not have it"}


def test_peer_that_brought_something_may_lack_things_again() -> None:
    schedule = schedule_of("b", ["a", "b"])
    for number in range(2 * REFUSALS_MAX):
        run = schedule.next_run("a", 0.0)
        assert run is not None
        if number == REFUSALS_MAX - 1:
            schedule.took("a", run, 0.0)
        elif number < 2 * REFUSALS_MAX - 1:
            schedule.refused("a", run, 0.0)
    assert schedule.faults == {}


def test_origin_that_lacks_a_chunk_is_asked_no_more() -> None:
    schedule = schedule_of("a", ["a", "b"])
    run = schedule.next_run("origin", 0.0)
    assert run is not None
    schedule.refused("origin", run, 0.0)
    assert schedule.faults == {"origin": "does not have it"}
    assert run in asked_of(schedule, "b")


def test_nothing_missing_is_done_at_once() -> None:
    schedule = schedule_of("a", missing=[])
    assert schedule.is_done
    assert not schedule.is_lost
    assert schedule.next_run("origin", 100.0) is None


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), hosts=st.integers(1, 6), origins=st.integers(0, 2), share=st.floats(0.01, 1))
def test_history_of_answers_refusals_and_losses_ends_done_or_lost(
    seed: int, hosts: int, origins: int, share: float
) -> None:
    draw = random.Random(seed)
    missing = [chunk for chunk in range(60) if draw.random() < share]
    sources = [ChunkSource(f"o{number}", has_all=True) for number in range(origins)]
    sources += [ChunkSource(name, has_all=False) for name in HOSTS[1 : hosts + 1]]
    schedule = FetchSchedule(LENGTHS, missing, "a", sources, 0.0)
    asked: dict[str, list[ChunkRun]] = {source.name: [] for source in sources}
    fetched: set[int] = set()
    now = 0.0
    for _ in range(20_000):
        if schedule.is_done or schedule.is_lost:
            break
        now += 0.1
        name = draw.choice(sorted(asked))
        fresh = schedule.next_run(name, now)
        if fresh is not None:
            asked[name].append(fresh)
        elif asked[name]:
            run = asked[name].pop(0)
            fate = draw.random()
            if fate < 0.02:
                schedule.drop(name, "lost")
            elif fate < 0.1:
                schedule.refused(name, run, now)
            else:
                fetched.update(range(run.first, run.first + run.count))
                schedule.took(name, run, now)
    assert schedule.is_lost or (schedule.is_done and fetched == set(missing))
