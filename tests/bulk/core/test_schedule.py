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
    group_chunks,
    missing_runs,
)
from dwcp_migrate.errors import LocalProtocolError

LENGTHS = [GROUP_BYTES_MIN] * 60
ORIGIN = ChunkSource("origin", has_all=True)
HOSTS = ["a", "b", "c", "d", "e", "f"]


def schedule_of(own: str, hosts: list[str] = HOSTS, missing: list[int] | None = None) -> FetchSchedule:
    others = [ChunkSource(name, has_all=False) for name in hosts if name != own]
    return FetchSchedule(LENGTHS, list(range(60)) if missing is None else missing, own, [ORIGIN, *others], 0.0)


def asked_of(schedule: FetchSchedule, name: str, now: float = 0.0) -> list[ChunkRun]:
    return list(iter(lambda: schedule.next_run(name, now), None))


def test_origin_is_asked_for_each_chunk_by_one_host_and_the_others_ask_that_host() -> None:
    schedules = {own: schedule_of(own) for own in HOSTS}
    own_share = {own: {run.first for run in asked_of(found, "origin")} for own, found in schedules.items()}
    assert sorted(chunk for share in own_share.values() for chunk in share) == list(range(60))
    for own, found in schedules.items():
        for other in HOSTS:
            if other != own:
                assert {run.first for run in asked_of(found, other)} == own_share[other]


def test_two_origins_share_what_one_host_asks_for() -> None:
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


def test_chunks_of_a_dropped_peer_are_asked_of_the_origin() -> None:
    schedule = schedule_of("a", ["a", "b"])
    mine = asked_of(schedule, "origin")
    under_way = schedule.next_run("b", 0.0)
    schedule.drop("b", "lied")
    assert schedule.next_run("b", 0.0) is None
    rest = asked_of(schedule, "origin")
    assert under_way in rest
    assert sorted(run.first for run in [*mine, *rest]) == list(range(60))
    assert schedule.faults == {"b": "lied"}


def test_chunks_of_a_lost_origin_are_asked_of_the_peers() -> None:
    schedule = schedule_of("a", ["a", "b"])
    schedule.drop("origin", "gone")
    assert {run.first for run in asked_of(schedule, "b")} == set(range(60))
    assert not schedule.is_lost
    schedule.drop("b", "gone too")
    assert schedule.is_lost


def test_idle_origin_is_asked_for_what_a_silent_peer_owes_and_not_earlier() -> None:
    schedule = schedule_of("a", ["a", "b"])
    for run in asked_of(schedule, "origin"):
        schedule.took("origin", run, 0.0)
    owed = schedule.next_run("b", 0.0)
    assert owed is not None
    assert schedule.next_run("origin", STALL_S - 0.01) is None
    assert schedule.next_run("origin", STALL_S) == owed
    schedule.took("origin", owed, STALL_S)
    assert not schedule.is_left(owed)


def test_peer_that_answers_keeps_its_share() -> None:
    schedule = schedule_of("a", ["a", "b"])
    for run in asked_of(schedule, "origin"):
        schedule.took("origin", run, 0.0)
    run = schedule.next_run("b", 0.0)
    assert run is not None
    schedule.took("b", run, STALL_S)
    assert schedule.next_run("origin", STALL_S + 0.5) is None


def test_peer_that_lacks_its_share_is_asked_again_up_to_the_limit() -> None:
    schedule = schedule_of("a", ["a", "b"])
    for number in range(REFUSALS_MAX):
        assert not schedule.faults, number
        run = schedule.next_run("b", 0.0)
        assert run is not None
        schedule.refused("b", run)
    assert schedule.faults == {"b": "does not have it"}


def test_origin_that_lacks_a_chunk_is_asked_no_more() -> None:
    schedule = schedule_of("a", ["a", "b"])
    run = schedule.next_run("origin", 0.0)
    assert run is not None
    schedule.refused("origin", run)
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
        run = schedule.next_run(name, now)
        if run is not None:
            asked[name].append(run)
        elif asked[name]:
            run = asked[name].pop(0)
            fate = draw.random()
            if fate < 0.02:
                schedule.drop(name, "lost")
            elif fate < 0.1:
                schedule.refused(name, run)
            else:
                fetched.update(range(run.first, run.first + run.count))
                schedule.took(name, run, now)
    assert schedule.is_lost or (schedule.is_done and fetched == set(missing))
