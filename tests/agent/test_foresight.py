"""Measuring, forecasting, sharing and predicting, with a ledger that a test fills and time that a test makes."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.forecasts import REPLAY, SLOTS, Forecasts
from dwcp_migrate.agent.history import History
from dwcp_migrate.agent.ledger import Ledger
from dwcp_migrate.agent.predictions import Predictions, Subject
from dwcp_migrate.agent.sharing import ALIVE_BYTES_PER_S, PROBE_EVERY_S, PROBE_S, WISHES_MAX, Sharing, Wish
from dwcp_migrate.bandwidth.series import Key
from dwcp_migrate.bandwidth.targets import LOW, MEDIAN, over_transfer
from dwcp_migrate.bandwidth.usage import LOOKS, ROOM
from dwcp_migrate.config import Bandwidth
from dwcp_migrate.session.messages import Counters
from dwcp_migrate.session.record import Event, Expected, Migration, close
from dwcp_migrate.units import GIB, MIB

RATE = 25e6
PEER = "hv2"
LINK = Key("link", "rate", PEER)


def record(identity: str = "aa" * 16, **changes: object) -> Migration:
    known = Migration(
        id=identity,
        role="source",
        state="precopy",
        peer=PEER,
        address="10.0.0.2",
        port=49152,
        domain=f"guest-{identity[:2]}",
        uuid=f"{identity[:8]}-0000-4000-8000-000000000000",
        started_at=1000.0,
        memory_bytes=GIB,
        remaining_bytes=GIB,
        dirty_bytes_per_s=1e6,
        iteration=1,
    )
    return replace(known, **changes)


class Bench:
    """A ledger, forecasts that know the link, and what the data processes were told."""

    def __init__(self, directory: Path, *, link: float = RATE) -> None:
        self.now = 1000.0
        self.ledger = Ledger(History(directory), lambda: self.now)
        self.forecasts = Forecasts(directory)
        self.paced: dict[str, float] = {}
        self.speeds: dict[str, float] = {}
        self.sharing = Sharing(self.ledger, self.forecasts, self.paced.__setitem__, self.speeds.__setitem__)
        for _ in range(REPLAY if link else 0):
            self.now += 1
            self.forecasts.sample(LINK, link, self.now)
            self.forecasts.step(self.now)

    def share(self, **config: object) -> None:
        self.sharing.update(Bandwidth(**{"share": True, **config}), 0.0, self.now)  # type: ignore[arg-type]  # names are the fields


def test_what_was_measured_is_forecast_and_survives_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.forecasts.quantiles(Key("link", "rate", "nobody")) is None
    found = bench.forecasts.quantiles(LINK)
    assert found is not None
    assert found[0, MEDIAN] == pytest.approx(RATE, rel=0.02)
    bench.forecasts._store.flush()
    again = Forecasts(tmp_path).quantiles(LINK)
    assert again is not None
    assert again[0, MEDIAN] == pytest.approx(RATE, rel=0.02)


def test_as_many_series_as_there_are_slots_are_forecast_and_one_more_takes_the_oldest_place(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    for number in range(SLOTS + 1):
        bench.forecasts.sample(Key("link", "rate", f"hv{number}"), 1e6 * (number + 1), 2000.0 + number)
        if number % 32 == 0:
            bench.forecasts.step(2000.0 + number)
    bench.forecasts.step(9999.0)
    assert len(bench.forecasts._slots) == SLOTS
    assert Key("link", "rate", "hv0") not in bench.forecasts._slots
    first = bench.forecasts.quantiles(Key("link", "rate", "hv0"))  # from what is kept of it
    assert first is not None
    assert first[0, MEDIAN] == pytest.approx(1e6, rel=0.2)


def test_new_models_are_taken_and_what_was_measured_is_not_lost(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.forecasts.reload()
    found = bench.forecasts.quantiles(LINK)
    assert found is not None
    assert found[0, MEDIAN] == pytest.approx(RATE, rel=0.05)


def test_one_migration_alone_is_held_to_no_rate(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ledger.put(record())
    bench.share()
    assert bench.paced == {}
    assert bench.ledger.running()[0].granted_bytes_per_s == -1


def test_on_a_link_of_which_nothing_is_known_nobody_is_held(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    for identity in ("aa" * 16, "bb" * 16):
        bench.ledger.put(record(identity))
    bench.share()
    assert bench.paced == {}


def test_of_two_the_shorter_runs_free_and_the_other_is_held_to_a_trickle(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    short, long = record("aa" * 16, remaining_bytes=100 * MIB), record("bb" * 16, remaining_bytes=900 * MIB)
    for one in (short, long):
        bench.ledger.put(one)
    bench.share()
    assert bench.paced.get(short.id, 0.0) == 0
    assert 0 < bench.paced[long.id] < 0.1 * RATE
    granted = {one.id: one.granted_bytes_per_s for one in bench.ledger.running()}
    forecast = bench.forecasts.quantiles(LINK)
    assert forecast is not None
    assert sum(granted.values()) <= over_transfer(forecast, 10)[LOW] * (1 + 1e-9)
    assert [bench.sharing.holds(one.id) for one in (short, long)] == [False, True]


def test_the_held_one_is_let_go_when_it_is_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    short, long = record("aa" * 16, remaining_bytes=MIB), record("bb" * 16)
    for one in (short, long):
        bench.ledger.put(one)
    bench.share()
    bench.ledger.put(close(short, bench.now, libvirt="completed"))
    bench.share()
    assert bench.paced[long.id] == 0


def test_one_that_is_still_opening_is_told_nothing_and_counts_for_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for one in (record("aa" * 16, remaining_bytes=MIB), record("bb" * 16, state="opening")):
        bench.ledger.put(one)
    bench.share()
    assert bench.paced == {}


def test_a_deadline_changes_who_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    short = record("aa" * 16, remaining_bytes=500 * MIB)
    long = record("bb" * 16, remaining_bytes=1000 * MIB)
    for one in (short, long):
        bench.ledger.put(one)
    bench.sharing.wish(long.domain, Wish(due_at=bench.now + 46))
    bench.share()
    assert bench.paced.get(long.id, 0.0) == 0
    assert bench.paced[short.id] > 0


def test_one_with_a_deadline_that_has_the_link_keeps_it_until_there_is_time_for_others(tmp_path: Path) -> None:
    """At the edge a flutter of the forecast would have the two change places every second."""
    bench = Bench(tmp_path)
    short = record("aa" * 16, remaining_bytes=250 * MIB, dirty_bytes_per_s=0.0)
    long = record("bb" * 16, remaining_bytes=900 * MIB, dirty_bytes_per_s=0.0)
    for one in (short, long):
        bench.ledger.put(one)
    needed_s = 1150 * MIB / (RATE * 0.95)
    bench.sharing.wish(long.domain, Wish(due_at=bench.now + 1.2 * needed_s))
    bench.share()
    assert (bench.sharing.holds(short.id), bench.sharing.holds(long.id)) == (False, True)
    bench.sharing.wish(long.domain, Wish(due_at=bench.now + 1.02 * needed_s))
    bench.share()
    assert (bench.sharing.holds(short.id), bench.sharing.holds(long.id)) == (True, False)
    bench.sharing.wish(long.domain, Wish(due_at=bench.now + 1.2 * needed_s))
    bench.share()
    assert (bench.sharing.holds(short.id), bench.sharing.holds(long.id)) == (True, False)
    bench.sharing.wish(long.domain, Wish(due_at=bench.now + 1.5 * needed_s))
    bench.share()
    assert (bench.sharing.holds(short.id), bench.sharing.holds(long.id)) == (False, True)


def test_one_with_a_deadline_that_had_the_link_alone_keeps_it_as_well(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    long = record("bb" * 16, remaining_bytes=900 * MIB, dirty_bytes_per_s=0.0)
    bench.ledger.put(long)
    bench.sharing.wish(long.domain, Wish(due_at=bench.now + 1.2 * 1150 * MIB / (RATE * 0.95)))
    bench.share()
    short = record("aa" * 16, remaining_bytes=250 * MIB, dirty_bytes_per_s=0.0)
    bench.ledger.put(short)
    bench.share()
    assert (bench.sharing.holds(short.id), bench.sharing.holds(long.id)) == (True, False)


def test_headroom_holds_a_single_migration_and_the_brake_is_let_go_to_measure(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one = record()
    bench.ledger.put(one)
    bench.share(headroom_share=0.2)
    assert 0.5 * RATE < bench.paced[one.id] <= 0.8 * RATE
    assert bench.sharing.holds(one.id)
    bench.now += PROBE_EVERY_S
    bench.share(headroom_share=0.2)
    assert bench.paced[one.id] == 0
    bench.now += PROBE_S
    bench.share(headroom_share=0.2)
    bench.now += 1
    bench.share(headroom_share=0.2)
    assert bench.paced[one.id] > 0


def test_the_disks_of_a_domain_are_held_only_while_its_memory_is_not_on_the_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = record("aa" * 16, remaining_bytes=MIB)
    disk = record("bb" * 16, kind="disk", domain="guest", remaining_bytes=-1, memory_bytes=4 * GIB)
    for one in (first, disk):
        bench.ledger.put(one)
    bench.share()
    assert bench.paced[disk.id] > 0
    memory = record("cc" * 16, domain="guest")
    bench.ledger.put(memory)
    bench.share()
    assert bench.paced[disk.id] == 0
    assert bench.paced[memory.id] > 0


def test_the_sessions_of_one_domain_do_not_share_the_link_with_each_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for one in (record("aa" * 16, kind="disk", domain="guest"), record("bb" * 16, domain="guest")):
        bench.ledger.put(one)
    bench.ledger.put(record("cc" * 16, kind="disk", domain="", uuid=""))  # of the same, but nobody has said so yet
    bench.share()
    assert bench.paced == {}


def test_migrations_whose_domains_are_not_known_yet_take_turns_by_the_memory_that_their_streams_announce(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    unknown = {"domain": "", "uuid": "", "remaining_bytes": -1, "dirty_bytes_per_s": -1.0}
    begun = record("aa" * 16, counters=Counters(raw_bytes=GIB - 50 * MIB, wire_bytes=GIB), **unknown)
    whole = record("bb" * 16, memory_bytes=GIB // 2, **unknown)
    disk = record("cc" * 16, kind="disk", domain="guest-aa")  # of one of the two, perhaps
    for one in (begun, whole, disk):
        bench.ledger.put(one)
    bench.share()
    assert set(bench.paced) == {whole.id}
    assert 0 < bench.paced[whole.id] < 0.1 * RATE


def test_what_passes_through_and_is_tied_to_no_domain_is_nobody_s(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ledger.put(record("aa" * 16))
    bench.ledger.put(record("bb" * 16, state="passthrough", passthrough_reason="old", domain="", uuid=""))
    bench.share()
    assert bench.paced == {}


def test_one_that_has_sent_all_leaves_the_link_to_the_others_before_its_record_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    closed = (Event(at=1.0, event="connection-closed", connection=0),)
    open_one = record("aa" * 16, state="switchover", connections={"main": 1})
    for one in (open_one, record("bb" * 16)):
        bench.ledger.put(one)
    bench.share()
    assert bench.paced["bb" * 16] > 0
    bench.ledger.put(replace(open_one, events=closed))
    bench.share()
    assert bench.paced["bb" * 16] == 0


def test_the_order_goes_by_what_memory_costs_on_the_wire_as_the_last_migration_showed(tmp_path: Path) -> None:
    """The larger guest's memory is mostly zero pages, of which its stream has shown nothing yet."""
    bench = Bench(tmp_path)
    large, small = record("aa" * 16, remaining_bytes=GIB), record("bb" * 16, remaining_bytes=GIB // 2)
    bench.forecasts.note(Key("domain", "first_share", large.uuid), 0.1, bench.now)
    bench.forecasts.note(Key("domain", "first_share", small.uuid), 0.9, bench.now)
    for one in (large, small):
        bench.ledger.put(one)
    bench.share()
    assert bench.paced.get(large.id, 0.0) == 0
    assert bench.paced[small.id] > 0


def test_a_guest_that_writes_in_a_burst_keeps_its_turn(tmp_path: Path) -> None:
    """Libvirt's first dirty rate of a job was a hundred times the usual one, of a guest that writes to 4 MiB."""
    bench = Bench(tmp_path)
    short = record("aa" * 16, remaining_bytes=300 * MIB, dirty_bytes_per_s=10 * RATE)
    for one in (short, record("bb" * 16, remaining_bytes=900 * MIB)):
        bench.ledger.put(one)
    bench.forecasts.note(Key("domain", "working_set", short.uuid), 4.0 * MIB, bench.now)
    bench.forecasts.note(Key("domain", "later_share", short.uuid), 1.0, bench.now)
    bench.share()
    assert bench.paced.get(short.id, 0.0) == 0


def test_what_the_first_cannot_use_the_next_gets(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first, second = record("aa" * 16, remaining_bytes=GIB // 2), record("bb" * 16)
    for one in (first, second):
        bench.ledger.put(one)
    bench.share()
    assert bench.paced[second.id] < 0.1 * RATE
    for _ in range(LOOKS):
        bench.sharing.usage.saw(first.id, 0.2 * RATE, busy=0.1)
    bench.share()
    assert bench.paced[second.id] == 0  # it has most now, so that it takes what the first leaves
    assert bench.paced[first.id] == pytest.approx(ROOM * 0.2 * RATE)
    bench.sharing.usage.saw(first.id, ROOM * 0.2 * RATE, busy=0.95)
    bench.share()
    assert bench.paced[first.id] == 0
    assert bench.paced[second.id] < 0.1 * RATE


def test_one_that_runs_free_is_shown_what_it_is_granted_now(tmp_path: Path) -> None:
    """It is told no rate, so that nothing changes for its data process."""
    bench = Bench(tmp_path)
    for one in (record("aa" * 16, remaining_bytes=100 * MIB), record("bb" * 16)):
        bench.ledger.put(one)
    bench.share()
    for _ in range(REPLAY):
        bench.forecasts.sample(LINK, 0.5 * RATE, bench.now)
        bench.forecasts.step(bench.now)
    bench.share()
    assert not bench.sharing.holds("aa" * 16)
    granted = {one.id: one.granted_bytes_per_s for one in bench.ledger.running()}
    assert 0 < granted["aa" * 16] < 0.6 * RATE


def test_a_link_without_room_still_keeps_everybody_alive(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    identities = [f"{number:032x}" for number in range(1, 9)]
    for identity in identities:
        bench.ledger.put(record(identity, domain=identity))
    bench.share(reserved_bytes_per_s=10 * RATE)
    assert set(bench.paced.values()) == {ALIVE_BYTES_PER_S}
    assert set(bench.paced) == set(identities)


def test_a_link_that_was_never_filled_is_shared_by_what_was_seen_on_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    bench.forecasts.note(Key("link", "seen", PEER), 8e6, bench.now)
    short, long = record("aa" * 16, remaining_bytes=MIB), record("bb" * 16)
    for one in (short, long):
        bench.ledger.put(one)
    bench.share()
    assert bench.paced.get(short.id, 0.0) == 0
    assert ALIVE_BYTES_PER_S <= bench.paced[long.id] < 0.1 * 8e6


def test_sharing_that_is_off_holds_nobody(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for identity in ("aa" * 16, "bb" * 16):
        bench.ledger.put(record(identity))
    bench.share(share=False)
    assert bench.paced == {}


def test_a_migration_that_passes_through_is_held_in_qemu_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plain = record("bb" * 16, state="passthrough", passthrough_reason="unreachable")
    for one in (record("aa" * 16, remaining_bytes=MIB), plain):
        bench.ledger.put(one)
    bench.share()
    assert plain.id not in bench.paced
    assert bench.speeds[plain.uuid] > 0


@pytest.mark.parametrize("who", ["the other", "itself"])
def test_a_speed_of_qemus_is_put_back_when_the_migration_is_alone_or_over(tmp_path: Path, who: str) -> None:
    bench = Bench(tmp_path)
    other = record("aa" * 16, remaining_bytes=MIB)
    plain = record("bb" * 16, state="passthrough", passthrough_reason="unreachable")
    for one in (other, plain):
        bench.ledger.put(one)
    bench.share()
    bench.ledger.put(close(other if who == "the other" else plain, bench.now, libvirt="failed"))
    bench.share()
    assert bench.speeds[plain.uuid] == 0


def test_wishes_are_kept_up_to_their_limit_and_the_oldest_goes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    for number in range(WISHES_MAX + 1):
        bench.sharing.wish(f"guest{number}", Wish(weight=2.0))
    assert bench.sharing.wished("guest0") == Wish()
    assert bench.sharing.wished("guest1") == Wish(weight=2.0)


SUBJECT = Subject(uuid=record().uuid, memory_bytes=GIB, peer=PEER, rtt_s=0.02)


def test_the_less_is_known_the_wider_is_what_is_said(tmp_path: Path) -> None:
    ignorant = Predictions(Bench(tmp_path / "a", link=0).forecasts, []).tell(SUBJECT)
    knowing = Bench(tmp_path / "b")
    for quantity, value in (("dirty", 1e6), ("first_share", 0.3), ("later_share", 0.1), ("encode", 400e6)):
        knowing.forecasts.note(Key("domain", quantity, SUBJECT.uuid), value, 0.0)
    knowing.forecasts.note(Key("domain", "working_set", SUBJECT.uuid), 64.0 * MIB, 0.0)
    told = Predictions(knowing.forecasts, []).tell(SUBJECT)
    assert told.link_known
    assert not ignorant.link_known
    assert told.expected.time_s[1] == pytest.approx(0.3 * GIB / RATE, rel=0.2)
    spread = [one.expected.time_s[2] / one.expected.time_s[0] for one in (told, ignorant)]
    assert spread[0] < 2.5
    assert spread[1] > 10
    assert told.expected.way == "precopy"


def finished(seconds: float, **changes: object) -> Migration:
    expected = Expected(
        time_s=(9, 10, 11),
        downtime_s=(0.1, 0.1, 0.1),
        wire_bytes=(1, 1, 1),
        convergence=1.0,
        way="precopy",
        model_time_s=10.0,
        model_downtime_s=0.1,
    )
    known = record(expected=expected, downtime_ms=300)
    return replace(close(known, 1000.0 + seconds, libvirt="completed"), **changes)


def test_earlier_errors_of_a_peer_correct_what_is_said_of_it_and_of_nobody_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plain = Predictions(bench.forecasts, []).tell(SUBJECT).expected
    history = [finished(20.0, id=f"{number:032x}") for number in range(12)]
    taught = Predictions(bench.forecasts, history)
    assert taught.tell(SUBJECT).expected.time_s[1] == pytest.approx(2 * plain.model_time_s, rel=0.05)
    assert taught.tell(SUBJECT).expected.downtime_s[1] == pytest.approx(3 * plain.model_downtime_s, rel=0.05)
    elsewhere = Subject(uuid=SUBJECT.uuid, memory_bytes=GIB, peer="hv3")
    assert taught.tell(elsewhere).expected.time_s[1] == pytest.approx(taught.tell(elsewhere).expected.model_time_s)


def test_a_failed_migration_corrects_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plain = Predictions(bench.forecasts, []).tell(SUBJECT).expected
    failed = [replace(finished(20.0), result="failed")]
    assert Predictions(bench.forecasts, failed).tell(SUBJECT).expected.time_s == plain.time_s


def test_a_migration_teaches_what_its_passes_showed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    stages = [
        (1.0, 1, Counters(raw_bytes=10 * MIB, wire_bytes=2 * MIB)),
        (11.0, 2, Counters(raw_bytes=GIB, wire_bytes=256 * MIB, path_waiting_s=1.0)),
        (13.0, 3, Counters(raw_bytes=GIB + 40 * MIB, wire_bytes=260 * MIB, path_waiting_s=1.1)),
    ]
    for seconds, iteration, counters in stages:
        predictions.watch(record(iteration=iteration, counters=counters), 1000.0 + seconds)
    counters = Counters(raw_bytes=GIB + 41 * MIB, wire_bytes=260 * MIB + 100)
    predictions.ended(close(record(iteration=3, counters=counters), 1014.0, libvirt="completed"))

    def newest(quantity: str) -> float:
        return bench.forecasts.known(Key("domain", quantity, SUBJECT.uuid), 1)[0]

    assert newest("first_share") == pytest.approx(0.25, rel=0.01)
    assert newest("later_share") == pytest.approx(0.1, rel=0.05)
    assert newest("encode") == pytest.approx(GIB / 11.0, rel=0.01)
    assert 40 * MIB <= newest("working_set") <= 160 * MIB


def test_a_cancelled_migration_teaches_by_the_passes_that_it_finished(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    whole = Counters(raw_bytes=GIB, wire_bytes=256 * MIB, path_waiting_s=9.0)
    for seconds, iteration, counters in ((1.0, 1, Counters()), (11.0, 2, whole)):
        predictions.watch(record(iteration=iteration, counters=counters), 1000.0 + seconds)
    ended = Counters(raw_bytes=2 * GIB, wire_bytes=GIB)
    predictions.ended(close(record(iteration=2, counters=ended), 1012.0, libvirt="failed"))
    assert bench.forecasts.known(Key("domain", "first_share", SUBJECT.uuid), 9) == [pytest.approx(0.25)]
    assert bench.forecasts.known(Key("domain", "later_share", SUBJECT.uuid), 9) == []


def test_what_a_link_did_not_fill_counts_until_it_is_filled_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for _ in range(10):
        bench.forecasts.seen(PEER, 4 * RATE, bench.now, fills=False)
    assert (found := bench.forecasts.carries(PEER, 10)) is not None
    assert found.median == pytest.approx(4 * RATE)
    bench.forecasts.seen(PEER, RATE, bench.now, fills=True)
    assert (found := bench.forecasts.carries(PEER, 10)) is not None
    assert found.median == pytest.approx(RATE, rel=0.05)


def test_what_is_left_becomes_an_estimate_with_a_range(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    bench.forecasts.note(Key("domain", "first_share", SUBJECT.uuid), 0.5, 0.0)
    half, tenth = (predictions.eta(record(remaining_bytes=int(GIB * share))) for share in (0.5, 0.1))
    assert half is not None
    assert tenth is not None
    assert tenth.median < half.median
    assert half.low < half.median < half.high
    assert predictions.eta(record(remaining_bytes=-1)) is None
    assert predictions.eta(record(state="passthrough")) is None


def test_predictions_are_scored_in_the_totals(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    bench.ledger.put(finished(10.5))
    bench.ledger.put(finished(20.0, id="bb" * 16))
    bench.ledger.put(replace(finished(20.0, id="cc" * 16), result="failed"))
    totals = bench.ledger.totals()
    assert totals.predictions == {"inside": 1, "outside": 1}
    assert totals.prediction_error == pytest.approx(0.05 + 1.0)


def rate_of(bench: Bench, samples: list[float], *, begin: float) -> float:
    """What the link is said to carry over a minute after a migration that showed these samples, one a second."""
    for second, value in enumerate(samples):
        bench.forecasts.sample(Key("link", "rate", PEER), value, begin + second)
        bench.forecasts.step(begin + second)
    found = bench.forecasts.carries(PEER, 60)
    assert found is not None
    return found.median


def test_a_link_that_became_another_one_between_two_migrations_is_believed_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    assert rate_of(bench, [3e6] * 60, begin=2000.0) == pytest.approx(3e6, rel=0.1)
    assert rate_of(bench, [7.5e6] * 5, begin=9000.0) == pytest.approx(7.5e6, rel=0.1)


def test_a_link_that_changes_within_a_migration_or_a_little_is_still_the_same(tmp_path: Path) -> None:
    within, little = Bench(tmp_path / "a", link=0), Bench(tmp_path / "b", link=0)
    assert rate_of(within, [3e6] * 60 + [7.5e6] * 5, begin=2000.0) < 6.5e6
    rate_of(little, [3e6, 3.5e6] * 30, begin=2000.0)
    assert rate_of(little, [3.6e6] * 5, begin=9000.0) < 3.55e6


def test_the_link_is_asked_for_as_long_as_the_guest_takes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    rate_of(bench, [3e6] * 60 + [9e6] * 20, begin=2000.0)
    short, long = (
        Predictions(bench.forecasts, []).tell(Subject(uuid="", memory_bytes=size, peer=PEER)).path.bytes_per_s.median
        for size in (GIB // 16, GIB)
    )
    assert short > 1.05 * long


def carried_out(predictions: Predictions, number: int, seconds: float) -> Migration:
    """A migration of `SUBJECT` that was predicted, crossed at a steady rate and ended after so many seconds."""
    begun = record(id=f"{number:032x}", iteration=1, expected=predictions.tell(SUBJECT).expected)
    wire_bytes = 0.3 * GIB
    predictions.watch(begun, begun.started_at + 1)
    for _ in range(int(seconds)):
        predictions.carried(begun, wire_bytes / seconds)
    counters = Counters(raw_bytes=GIB, wire_bytes=int(wire_bytes), path_waiting_s=seconds, rtt_s=SUBJECT.rtt_s)
    ended = close(replace(begun, counters=counters), begun.started_at + seconds, libvirt="completed")
    predictions.ended(ended)
    return ended


def test_a_link_that_was_forecast_wrong_does_not_count_as_an_error_of_the_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path)  # the link's forecast says RATE
    predictions = Predictions(bench.forecasts, [])
    model_s = 0.3 * GIB / RATE
    for number in range(4):  # four times as slow as that
        carried_out(predictions, number, 4 * model_s)
    said = predictions.tell(SUBJECT).expected
    assert said.is_guest_known
    assert said.time_s[1] == pytest.approx(said.model_time_s, rel=0.1)
    assert said.time_s[2] > 2 * said.time_s[1]  # but what was said was wrong, and the interval knows


def test_guests_that_were_never_seen_widen_no_interval_of_those_that_were(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    unseen = [
        replace(record, expected=replace(record.expected, is_guest_known=False))
        for record in (finished(70.0, id=f"{number:032x}") for number in range(12))
        if record.expected is not None
    ]
    seen = [finished(10.0, id=f"{number:032x}") for number in range(100, 112)]
    bench.forecasts.note(Key("domain", "first_share", SUBJECT.uuid), 0.3, 0.0)
    known = Predictions(bench.forecasts, [*seen, *unseen]).tell(SUBJECT).expected
    unknown = Predictions(Bench(tmp_path / "b").forecasts, [*seen, *unseen]).tell(SUBJECT).expected
    assert known.time_s[2] < 1.2 * known.time_s[1]
    assert unknown.time_s[2] > 3 * unknown.time_s[1]
