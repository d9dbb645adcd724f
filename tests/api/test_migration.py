import pytest
from msgspec.structs import replace

from dwcp_migrate.api.migration import (
    DETAIL_CHARACTERS_MAX,
    EVENTS_MAX,
    POSTCOPY_BROKE,
    POSTCOPY_MAY_HAVE_BROKEN,
    TRANSITIONS,
    Migration,
    MigrationEvent,
    append_event,
    apply_counters,
    apply_finished,
    apply_happened,
    close_record,
    enter_state,
    with_eta,
)
from dwcp_migrate.protocol.worker import EVENTS, Finished, Happened, MigrationCounters


def record(**fields: object) -> Migration:
    made = Migration(id="0" * 32, role="source", peer="b", address="10.0.0.2", port=49152, started_at=100.0)
    return replace(made, **fields)


def after(*events: str) -> Migration:
    found = record()
    for number, event in enumerate(events):
        found = apply_happened(found, Happened(event=event, detail="main"), 101.0 + number)
    return found


def test_every_state_that_may_follow_is_a_state() -> None:
    assert all(follow in TRANSITIONS for follows in TRANSITIONS.values() for follow in follows)


def test_nothing_follows_the_end() -> None:
    ended = close_record(record(), 110.0)
    assert [enter_state(ended, state, 111.0) for state in TRANSITIONS] == [ended] * len(TRANSITIONS)
    assert close_record(ended, 120.0) is ended


def test_a_migration_goes_through_its_states() -> None:
    found = after("connection-opened", "switchover")
    assert [phase.state for phase in found.phases] == ["precopy", "switchover"]
    assert close_record(found, 110.0).result == "completed"


@pytest.mark.parametrize("before", ["connection-opened", "switchover", "postcopy"])
def test_a_link_that_comes_back_returns_to_the_state_that_it_interrupted(before: str) -> None:
    events = ["connection-opened", before] if before != "connection-opened" else [before]
    state = after(*events).state
    waiting = after(*events, "link-lost")
    assert waiting.state == "waiting"
    assert apply_happened(waiting, Happened(event="link-restored"), 120.0).state == state


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_every_event_is_noted_and_none_breaks_an_ended_record(event: str) -> None:
    assert apply_happened(record(), Happened(event=event), 101.0).events[-1].event == event
    ended = close_record(record(), 110.0)
    assert apply_happened(ended, Happened(event=event), 111.0).state == "ended"


def test_it_failed_when_it_ended_before_the_switchover() -> None:
    ended = close_record(after("connection-opened"), 110.0)
    assert (ended.result, ended.reason != "") == ("failed", True)


def test_libvirts_word_counts() -> None:
    assert close_record(after("connection-opened"), 110.0, libvirt="completed").result == "completed"
    returned = close_record(after("connection-opened", "switchover"), 110.0, libvirt="failed", reason="it says so")
    assert (returned.result, returned.reason) == ("failed", "it says so")


def test_a_fault_of_the_data_process_is_the_reason() -> None:
    message = Finished(result="link-lost", counters=MigrationCounters(raw_bytes=7), detail="x" * 10_000)
    found = close_record(apply_finished(after("connection-opened", "switchover"), message), 110.0)
    assert found.result == "failed"
    assert found.counters.raw_bytes == 7
    assert "did not come back" in found.reason
    assert len(found.reason) < DETAIL_CHARACTERS_MAX + 100


def test_events_at_the_limit_are_kept_and_one_more_drops_a_middle_one() -> None:
    found = record()
    for number in range(EVENTS_MAX + 1):
        found = append_event(found, MigrationEvent(at=number, event="channels", number=number))
    numbers = [event.number for event in found.events]
    assert len(numbers) == EVENTS_MAX
    assert (numbers[0], numbers[-1]) == (0, EVENTS_MAX)
    assert EVENTS_MAX // 2 not in numbers


def test_rates_follow_the_counters_and_the_estimate_follows_the_rates() -> None:
    found = apply_counters(record(remaining_bytes=1000, dirty_bytes_per_s=50.0), MigrationCounters(raw_bytes=100), 1.0)
    assert found.raw_bytes_per_s == 100
    assert found.eta_s == 1000 / 50
    assert apply_counters(found, MigrationCounters(raw_bytes=100), 0.0).raw_bytes_per_s == 100
    assert apply_counters(record(), MigrationCounters(raw_bytes=1), 1.0).eta_s == -1


def test_a_guest_that_writes_faster_than_we_send_has_no_estimate() -> None:
    assert (
        apply_counters(record(remaining_bytes=1, dirty_bytes_per_s=200.0), MigrationCounters(raw_bytes=100), 1.0).eta_s
        == -1
    )


def test_disks_are_told_from_memory_by_their_connections() -> None:
    assert apply_happened(record(), Happened(event="connection-opened", detail="nbd"), 101.0).kind == "disk"


def in_postcopy(*words: str) -> Migration:
    made = enter_state(enter_state(record(), "precopy", 1.0), "postcopy", 2.0)
    for number, word in enumerate(words):
        made = append_event(made, MigrationEvent(at=3.0 + number, event=f"libvirt-{word}"))
    return made


@pytest.mark.parametrize(
    ("words", "says", "is_split"),
    [
        (("postcopy", "postcopy-failed"), POSTCOPY_BROKE, True),
        (("postcopy", "postcopy-failed", "postcopy"), POSTCOPY_MAY_HAVE_BROKEN, False),
        (("postcopy",), POSTCOPY_MAY_HAVE_BROKEN, False),
        (("postcopy", "gone"), "", False),
    ],
)
def test_of_a_guest_in_postcopy_it_is_never_said_that_the_source_has_it(
    *, words: tuple[str, ...], says: str, is_split: bool
) -> None:
    broken = close_record(replace(in_postcopy(*words), reason="the link was lost"), 9.0, libvirt="failed")
    assert broken.is_split == is_split
    assert broken.reason == "; ".join(filter(None, ["the link was lost", says]))
    assert "source" not in close_record(in_postcopy("postcopy", "gone"), 9.0, libvirt="failed").reason
    assert close_record(in_postcopy(*words, "left"), 9.0, libvirt="completed").reason == ""


def test_an_estimate_is_taken_down_when_the_link_is_cut_and_when_postcopy_begins() -> None:
    sent = with_eta(enter_state(record(), "precopy", 1.0), 14.0, 5.0, 33.0)
    cut = enter_state(sent, "waiting", 2.0)
    assert (cut.eta_s, cut.eta_range_s, cut.eta_note) == (-1.0, None, "the link is cut")
    assert enter_state(cut, "precopy", 3.0).eta_note == ""
    moved = enter_state(sent, "postcopy", 2.0)
    assert (moved.eta_s, moved.eta_range_s, moved.eta_note) == (-1.0, None, "")
    ended = close_record(cut, 4.0, libvirt="failed")
    assert (ended.eta_s, ended.eta_note) == (-1.0, "")
