"""Who gets how much of a link, with a ledger that a test fills and time that a test makes."""

import dataclasses
from pathlib import Path

import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.forecasting.rate_control import (
    ALIVE_BYTES_PER_S,
    PROBE_EVERY_S,
    PROBE_S,
    WISHES_MAX,
    RateController,
    SharePreference,
)
from dwcp_migrate.agent.forecasting.series import REPLAY
from dwcp_migrate.api.migration import MigrationEvent, close_record
from dwcp_migrate.bandwidth.allocation.usage import LOOKS, ROOM
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.bandwidth.targets import LOW, over_transfer
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.units import GIB, MIB
from tests.agent.foresight import LINK, NO_LIMITS, PEER, RATE, Bench, record


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
    bench.ledger.put(close_record(short, bench.now, libvirt="completed"))
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
    bench.sharing.wish(long.domain, SharePreference(due_at=bench.now + 46))
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
    for slack, first in ((1.2, short), (1.02, long), (1.2, long), (1.5, short)):
        bench.sharing.wish(long.domain, SharePreference(due_at=bench.now + slack * needed_s))
        bench.share()
        assert [one for one in (short, long) if not bench.sharing.holds(one.id)] == [first], slack


def test_one_with_a_deadline_that_had_the_link_alone_keeps_it_as_well(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    long = record("bb" * 16, remaining_bytes=900 * MIB, dirty_bytes_per_s=0.0)
    bench.ledger.put(long)
    bench.sharing.wish(long.domain, SharePreference(due_at=bench.now + 1.2 * 1150 * MIB / (RATE * 0.95)))
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
    begun = record("aa" * 16, counters=MigrationCounters(raw_bytes=GIB - 50 * MIB, wire_bytes=GIB), **unknown)
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
    closed = (MigrationEvent(at=1.0, event="connection-closed", connection=0),)
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
    bench.ledger.put(close_record(other if who == "the other" else plain, bench.now, libvirt="failed"))
    bench.share()
    assert bench.speeds[plain.uuid] == 0


def test_wishes_are_kept_up_to_their_limit_and_the_oldest_goes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    for number in range(WISHES_MAX + 1):
        bench.sharing.wish(f"guest{number}", SharePreference(weight=2.0))
    assert bench.sharing.wished("guest0") == SharePreference()
    assert bench.sharing.wished("guest1") == SharePreference(weight=2.0)


CAP = 0.2 * RATE


@pytest.mark.parametrize(
    ("link", "share", "count", "config"),
    [
        (RATE, True, 1, {}),
        (RATE, True, 3, {}),
        (RATE, True, 3, {"headroom_share": 0.1}),
        (RATE, True, 40, {}),
        (RATE, False, 3, {}),
        (0.0, True, 1, {}),
        (0.0, False, 2, {}),
    ],
)
def test_the_rate_of_a_link_is_a_maximum_at_every_moment_and_in_every_mode(
    tmp_path: Path, *, link: float, share: bool, count: int, config: dict[str, float]
) -> None:
    """Two minutes, in which the brake of head-room would be let go four times to measure the link."""
    bench = Bench(tmp_path, link=link)
    for number in range(count):
        identity = f"{number:02x}" * 16
        kind = {"kind": "disk", "domain": "", "uuid": ""} if number == 2 else {}  # nobody knows whose yet
        bench.ledger.put(record(identity, remaining_bytes=50 * GIB, memory_bytes=64 * GIB, **kind))
    for second in range(124):
        bench.share(share=share, link_bytes_per_s_max=CAP, **config)
        rates = [bench.sharing.rate(one.id) for one in bench.ledger.running()]
        assert min(rates) > 0
        assert sum(rates) <= CAP * (1 + 1e-9)
        bench.now += 1
        if link and second % 10 == 0:
            bench.forecasts.sample(LINK, link * (0.5 + second / 124), bench.now)
            bench.forecasts.step(bench.now)


def test_a_single_migration_under_a_ceiling_gets_all_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one = record()
    bench.ledger.put(one)
    bench.share(link_bytes_per_s_max=CAP)
    assert bench.paced[one.id] == pytest.approx(CAP)
    bench.share()
    assert bench.paced[one.id] == 0


def test_under_a_ceiling_whoever_gets_less_is_told_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    told: list[float] = []
    total: dict[str, float] = {}

    def pace(identity: str, rate: float) -> None:
        total[identity] = rate
        told.append(sum(total.values()))

    bench.sharing = RateController(bench.ledger, bench.forecasts, pace, bench.speeds.__setitem__, NO_LIMITS)
    for number in range(4):
        bench.ledger.put(record(f"{number:02x}" * 16))
        bench.share(link_bytes_per_s_max=CAP)
    assert max(told) <= CAP * (1 + 1e-9)


def test_a_domains_own_limit_holds_it_alone_and_the_record_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    limits = dataclasses.replace(
        NO_LIMITS,
        of_domain=lambda name: CAP if name == "db" else 0.0,
        words=lambda _peer, name: "slowly by [[domains]] of db" if name == "db" else "",
    )
    told = bench.paced.__setitem__
    bench.sharing = RateController(bench.ledger, bench.forecasts, told, bench.speeds.__setitem__, limits)
    memory = record("aa" * 16, domain="db")
    disk, other = record("bb" * 16, domain="db", kind="disk"), record("cc" * 16, domain="web")
    for one in (memory, disk, other):
        bench.ledger.put(one)
    for _ in range(3):
        bench.share()
    assert bench.paced[memory.id] + bench.paced[disk.id] == pytest.approx(CAP)
    assert other.id not in bench.paced
    said = bench.ledger.find(memory.id).events
    assert [(event.event, event.detail) for event in said] == [("limit", "slowly by [[domains]] of db")]
    assert bench.ledger.find(other.id).events == ()


def test_a_guest_that_the_user_paused_goes_first(tmp_path: Path) -> None:
    """`virsh migrate --timeout` and `virsh suspend`: each second until it is over is downtime."""
    bench = Bench(tmp_path)
    short, paused = record("aa" * 16, remaining_bytes=100 * MIB), record("bb" * 16, guest_paused=True)
    for one in (short, paused):
        bench.ledger.put(one)
    bench.share()
    assert not bench.sharing.holds(paused.id)
    assert bench.sharing.holds(short.id)


def test_on_a_link_with_dead_seconds_what_is_shared_is_what_it_carries_in_the_others(tmp_path: Path) -> None:
    """In a dead second there is nothing to share: a grant of nothing would only waste the living ones."""
    bench = Bench(tmp_path)
    for second in range(120):
        bench.now += 1
        bench.forecasts.sample(LINK, 0.0 if second % 5 == 0 else RATE, bench.now)
        bench.forecasts.step(bench.now)
    whole, alive = (bench.forecasts.carries(PEER, 1, alive=alive) for alive in (False, True))
    assert whole is not None
    assert alive is not None
    assert whole.low == 0
    assert alive.low > 0.8 * RATE
    minute = bench.forecasts.carries(PEER, 60)
    assert minute is not None
    assert minute.median == pytest.approx(0.8 * RATE, rel=0.15)
    for one in (record("aa" * 16, remaining_bytes=100 * MIB), record("bb" * 16)):
        bench.ledger.put(one)
    bench.share()
    granted = sum(one.granted_bytes_per_s for one in bench.ledger.running())
    assert granted == pytest.approx(alive.low, rel=0.1)


def test_the_limit_of_one_link_is_a_maximum_of_that_one_and_the_lowest_counts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    limited, other = record("aa" * 16), record("bb" * 16, peer="elsewhere")
    for one in (limited, other):
        bench.ledger.put(one)
    bench.sharing._ceilings = dataclasses.replace(NO_LIMITS, of_link=lambda peer: CAP if peer == PEER else 0.0)
    bench.share()
    assert bench.paced == {limited.id: pytest.approx(CAP)}
    bench.share(link_bytes_per_s_max=CAP / 2)
    assert bench.paced == {limited.id: pytest.approx(CAP / 2), other.id: pytest.approx(CAP / 2)}
    bench.sharing._ceilings = NO_LIMITS
    bench.share()
    assert set(bench.paced.values()) == {0}
