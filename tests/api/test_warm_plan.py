"""Plans whose guests are warmed up first: the order, the time until which moves wait, and the limits."""

import json

import msgspec
import pytest
from msgspec.structs import replace

from dwcp_migrate.api import warm_plan
from dwcp_migrate.api.plans import (
    BEGINS_AT_MAX,
    GuestWarmth,
    PlanRecord,
    PlanRequest,
    WarmFirst,
    WarmMove,
    decode_record,
    encode_record,
)
from dwcp_migrate.api.warm import SETTLED_SHARE, WarmGrowth, WarmUp
from dwcp_migrate.api.warm_plan import (
    REFRESH_S,
    WARM_BYTES_MAX,
    WARM_MOVES_MAX,
    WARM_WORDS_MAX,
    has_to_wait,
    next_move,
    unheard_moves,
    warm_moves,
    with_outcomes,
)
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.plan import Goal

MOVES = [WarmMove("vm1", "hv1", "hv2"), WarmMove("vm2", "hv3", "hv2"), WarmMove("vm3", "hv1", "hv3")]
WARM = GuestWarmth(at=100.0, is_warm=True)
REFUSED = GuestWarmth(at=100.0, words="hv2 refused: it has no page store")


def plan(*, waits: bool = False, **changes: object) -> PlanRecord:
    order = WarmFirst(begins_at=1000.0, waits=waits, moves=MOVES)
    request = PlanRequest(goal=Goal(purpose="drain", host="hv1"), warm_first=order)
    return replace(PlanRecord(request=request, id=1, by="hv1"), **changes)


def test_each_host_warms_up_its_own_guests_in_the_plans_order() -> None:
    record = plan()
    assert next_move(record, "hv1", 0.0) == MOVES[0]
    assert next_move(record, "hv3", 0.0) == MOVES[1]
    assert next_move(record, "hv2", 0.0) is None
    record = with_outcomes(record, {"vm1": WARM})
    assert next_move(record, "hv1", 0.0) == MOVES[2]


def test_moves_wait_until_every_guest_is_warm_or_refused_and_no_longer_than_their_time() -> None:
    record = with_outcomes(plan(), {"vm1": WARM, "vm2": REFUSED})
    assert has_to_wait(record, 999.9)
    assert not has_to_wait(record, 1000.0)
    assert next_move(record, "hv1", 1000.0) is None
    assert not has_to_wait(with_outcomes(record, {"vm3": REFUSED}), 0.0)


def test_a_plan_with_a_time_waits_for_it_however_warm_its_guests_are_and_keeps_them_warm() -> None:
    late = GuestWarmth(at=500.0, is_warm=True)
    record = with_outcomes(plan(waits=True), {"vm1": late, "vm2": WARM, "vm3": replace(WARM, at=50.0)})
    record = replace(
        record, request=replace(record.request, warm_first=WarmFirst(begins_at=1e6, waits=True, moves=MOVES))
    )
    assert has_to_wait(record, 999_999.0)
    assert not has_to_wait(record, 1e6)
    assert next_move(record, "hv1", 49.9 + REFRESH_S) is None
    assert next_move(record, "hv1", 50.0 + REFRESH_S) == MOVES[2]
    assert next_move(with_outcomes(record, {"vm3": replace(REFUSED, at=50.0)}), "hv1", 50.0 + REFRESH_S) == MOVES[2]


@pytest.mark.parametrize(("state", "wish"), [
    ("running", "run"), ("paused", "pause"), ("waiting", "abort"), ("waiting", "pause"), ("completed", "run"),
])  # fmt: skip
def test_what_was_begun_or_is_stopped_is_neither_held_back_nor_warmed_up(state: str, wish: str) -> None:
    record = plan(state=state, wish=wish)
    assert not has_to_wait(record, 0.0)
    assert next_move(record, "hv1", 0.0) is None


def test_a_record_of_before_warm_ups_reads_and_waits_for_nothing() -> None:
    written = json.loads(encode_record(PlanRecord(request=PlanRequest(goal=Goal(purpose="drain", host="hv1")), id=1)))
    del written["request"]["warm_first"]
    assert "warmed" not in written
    read = decode_record(json.dumps(written).encode())
    assert (read.request.warm_first, read.warmed) == (None, {})
    assert not has_to_wait(read, 0.0)
    assert next_move(read, "hv1", 0.0) is None
    assert decode_record(encode_record(plan())) == plan()


def test_a_time_that_no_host_can_write_as_a_date_is_refused() -> None:
    def record(begins_at: float) -> bytes:
        order = WarmFirst(begins_at=begins_at)
        return encode_record(PlanRecord(request=PlanRequest(goal=Goal(purpose="rebalance"), warm_first=order)))

    assert decode_record(record(BEGINS_AT_MAX)).request.warm_first == WarmFirst(begins_at=BEGINS_AT_MAX)
    with pytest.raises(PlacementError, match="begins_at"):
        decode_record(record(BEGINS_AT_MAX + 1))


def test_as_many_guests_are_warmed_up_as_a_record_has_room_for() -> None:
    def moves(count: int, name: str = "vm") -> list[WarmMove]:
        return [WarmMove(f"{name}{number}", "hv1", "hv2") for number in range(count)]

    assert warm_moves(moves(WARM_MOVES_MAX)) == moves(WARM_MOVES_MAX)
    assert warm_moves(moves(WARM_MOVES_MAX + 1)) == moves(WARM_MOVES_MAX)
    assert warm_moves([*MOVES, WarmMove("vm1", "hv2", "hv3")]) == [WarmMove("vm1", "hv1", "hv3"), *MOVES[1:]]
    long = moves(100, "x" * 250)
    kept = warm_moves(long)
    size = sum(len(msgspec.json.encode(one)) for one in kept)
    assert size <= WARM_BYTES_MAX < size + len(msgspec.json.encode(long[len(kept)]))


def test_the_largest_plan_and_its_outcomes_fit_into_a_record() -> None:
    moves = warm_moves(WarmMove(f"{number:0150}", "hv1", "hv2") for number in range(WARM_MOVES_MAX))
    assert len(moves) == WARM_MOVES_MAX
    record = plan()
    order = WarmFirst(begins_at=1.0, moves=moves)
    record = replace(record, request=replace(record.request, warm_first=order))
    words = "x" * (WARM_WORDS_MAX + 1)
    record = with_outcomes(record, {one.domain: GuestWarmth(at=1790000000.5, words=words) for one in moves})
    assert {len(one.words) for one in record.warmed.values()} == {WARM_WORDS_MAX}
    assert decode_record(encode_record(record)) == record


def test_without_shared_state_only_the_hosts_own_guests_are_heard_of() -> None:
    assert unheard_moves(plan(), "hv1") == [MOVES[1]]
    assert unheard_moves(with_outcomes(plan(), {"vm2": REFUSED}), "hv1") == []


def test_a_plan_that_has_ended_takes_no_outcome() -> None:
    ended = plan(state="aborted", wish="abort")
    assert with_outcomes(ended, {"vm1": WARM}) == ended


def test_the_destinations_are_kept_by_domain() -> None:
    assert warm_plan.wanted_hosts(plan()) == {"vm1": "hv2", "vm2": "hv2", "vm3": "hv3"}
    bare = PlanRecord(request=PlanRequest(goal=Goal(purpose="rebalance")))
    assert warm_plan.wanted_hosts(bare) == {}


def settles(*passes: tuple[int, int]) -> list[bool]:
    """Of passes by the pages that each carried and those that were there already: whether each was the last needed."""
    one = WarmUp(id="a", domain="vm1", uuid="u", peer="hv2", started_at=0.0)
    growth, found = WarmGrowth(), list[bool]()
    assert not growth.is_settled(replace(one, pages=10))  # in its first pass
    for pages, known in passes:
        one = replace(one, passes=one.passes + 1, pages=one.pages + pages, known_pages=one.known_pages + known)
        found.append(growth.is_settled(one))
        assert not growth.is_settled(one)  # the same pass once more
    return found


def test_a_guest_is_warm_when_a_pass_brings_little_that_is_new() -> None:
    few = round(1000 * SETTLED_SHARE)
    assert settles((1000, 0), (1000, 1000 - few - 1), (1000, 1000 - few)) == [False, False, True]
    assert settles((1000, 1000)) == [True]
    assert settles((0, 0)) == [True]


def test_a_guest_that_writes_as_fast_as_passes_follow_is_as_warm_as_it_gets() -> None:
    assert settles((1000, 0), (1000, 200), (1000, 360)) == [False, False, False]
    assert settles((1000, 0), (1000, 200), (1000, 359)) == [False, False, True]
