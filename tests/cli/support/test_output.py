import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from dwcp_migrate.api.words import say_running
from dwcp_migrate.cli.migrations.screen.picture import MIGRATION_RATES_MAX, PEERS_MAX, RATES_MAX, RateTrail, View, draw
from dwcp_migrate.cli.migrations.screen.sparkline import ASCII, BLOCKS, levels_for, sparkline
from dwcp_migrate.cli.support import output

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "-"),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 0 min"),
        (7800, "2 h 10 min"),
        (86400 * 12 + 3 * 3600, "12 d 3 h"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert output.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "no migration is under way"), (1, "1 migration runs on"), (2, "2 migrations run on")],
)
def test_migrations_that_run_on_are_counted_with_their_number(count: int, said: str) -> None:
    assert say_running(count) == said


def test_progress_is_libvirts_word_then_the_bytes_then_unknown(migration: Make, ended: Make) -> None:
    assert output.progress(migration()) == 0.75
    assert output.progress(migration(remaining_bytes=-1)) == 0.99
    assert output.progress(migration(memory_bytes=0)) is None
    assert output.progress(migration(remaining_bytes=8 << 30)) == 0.0
    assert output.progress(ended()) == 1.0
    assert output.progress(ended(result="failed")) is None


def test_the_ratio_of_an_unaccelerated_migration_is_not_one_but_unknown(migration: Make) -> None:
    assert output.ratio(migration()) == "5.0"
    assert output.ratio(migration(passthrough_reason="tls")) == "-"


def test_a_narrow_terminal_goes_without_spare_columns_the_first_first() -> None:
    header, rows = ("Id", "Raw", "Wire", "Note"), [("1", "10 GiB", "1 GiB", "fine")]
    whole = output.format_table(header, rows)
    width = len(whole.splitlines()[1])
    assert output.fit(header, rows, ("Raw", "Wire"), 0) == output.fit(header, rows, ("Raw", "Wire"), width) == whole
    assert output.fit(header, rows, ("Raw", "Wire"), width - 1).splitlines()[0] == " Id   Wire    Note"
    assert output.fit(header, rows, ("Raw", "Wire"), 1).splitlines()[0] == " Id   Note"


def test_a_table_is_as_wide_as_its_widest_cell() -> None:
    assert output.format_table(("Id", "Name"), [("1", "a-long-name"), ("22", "b")]) == (
        " Id   Name\n------------------\n 1    a-long-name\n 22   b"
    )


def test_a_block_leaves_out_what_has_no_value() -> None:
    assert output.format_block([("Id", "1"), ("Reason", ""), ("Downtime", "3 ms")]) == "Id:        1\nDowntime:  3 ms"


def test_names_are_cut_where_a_table_without_spare_columns_is_still_too_wide() -> None:
    header, rows = ("Name", "Host", "Ms"), [("a-name-of-24-characters.", "a-host-of-16-chr", "12"), ("b", "c", "3")]
    narrow = output.fit(header, rows, (), 40, ("Name", "Host"))
    assert narrow.splitlines()[2] == " a-name-of-2...   a-host-of-16-chr   12"
    assert max(map(len, output.fit(header, rows, (), 30, ("Name", "Host")).splitlines())) <= 30
    assert output.fit(header, rows, (), 1, ("Name", "Host")).splitlines()[2] == " a-nam...   a-hos...   12"


def test_a_block_wraps_below_its_values_and_only_for_a_terminal() -> None:
    pairs = [("Carried", "3 completed, 1 failed"), ("Id", "1")]
    assert output.format_block(pairs) == "Carried:  3 completed, 1 failed\nId:       1"
    assert output.format_block(pairs, 24) == "Carried:  3 completed, 1\n          failed\nId:       1"


def test_a_sparkline_is_nothing_only_for_nothing_and_full_at_its_peak() -> None:
    assert sparkline([0, 0.1, 50, 100, 150], 100, BLOCKS) == " ▁▄██"
    assert sparkline([0, 0.1, 50, 100, 150], 100, ASCII) == " .=@@"
    assert sparkline([0, 0], 0, BLOCKS) == "  "
    assert len(ASCII) == len(BLOCKS)


@pytest.mark.parametrize(
    ("encodings", "levels"),
    [
        (("utf-8", "UTF-8"), BLOCKS),
        (("utf-8", "ANSI_X3.4-1968"), ASCII),
        (("latin-1", "utf-8"), ASCII),
        (("utf-8", "no-such-encoding"), ASCII),
    ],
)
def test_blocks_are_drawn_only_where_terminal_and_locale_have_them(encodings: tuple[str, ...], levels: str) -> None:
    assert levels_for(*encodings) == levels


def drawn(answer: Any, recent: list[Any], width: int = 160, view: View | None = None) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(draw(answer, recent, width, view))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_top_draws_running_and_ended_migrations(status: Make, ended: Make) -> None:
    text = drawn(status(), [ended()])
    assert "hv1  running" in text
    assert "guest memory 800.0 Mbit/s" in text
    assert "on the wire  160.0 Mbit/s" in text
    assert "q quit" in text
    assert "75 %" in text
    assert "120 ms" in text


@pytest.mark.parametrize("width", [60, 80, 90, 100, 120, 150, 200])
def test_top_leaves_columns_out_rather_than_cut_numbers(
    status: Make, migration: Make, ended: Make, peer: Make, width: int
) -> None:
    running = [migration(), migration(domain="tls", passthrough_reason="tls", state="passthrough")]
    rates = RateTrail()
    for _ in range(2 * RATES_MAX):
        rates.take(status(migrations=running))
    peers = [peer(), peer(name="hv3." + 40 * "x", reachable=False, code="unreachable", error="no route to it " * 9)]
    view = View(rates=rates, peers=peers)
    text = drawn(status(migrations=running), [ended(domain="a-name-of-more-than-a-few-characters")], width, view)
    assert " 40.2 ms" in text
    assert "precopy 2" in text
    assert "75 %" in text
    assert "800.0 Mbit/s" in text
    assert "completed" in text
    assert " 11 s" in text
    assert max(map(len, text.splitlines())) <= width


def test_top_of_an_idle_agent_says_so(status: Make) -> None:
    assert "No migration under way." in drawn(status(migrations=[]), [])


def test_top_draws_the_rates_so_far_of_the_host_and_of_each_migration(status: Make, migration: Make) -> None:
    rates = RateTrail()
    for mbit in (0, 400, 800):
        raw, wire = mbit * 125e3, mbit * 25e3
        one = migration(raw_bytes_per_s=raw, wire_bytes_per_s=wire)
        answer = status(migrations=[one])
        rates.take(answer)
    text = drawn(answer, [], 160, View(rates=rates))
    assert "guest memory 800.0 Mbit/s   ▄█" in text
    assert "on the wire  160.0 Mbit/s   ▁▂" in text
    assert "75 %  800.0 Mbit/s   ▄█" in text
    assert "guest memory 800.0 Mbit/s   =@" in drawn(answer, [], 160, View(rates=rates, levels=ASCII))
    assert drawn(answer, [], 160, View(rates=rates, levels=ASCII)).isascii()


def test_top_keeps_so_many_rates_and_none_of_a_migration_that_is_over(status: Make, migration: Make) -> None:
    rates = RateTrail()
    for _ in range(RATES_MAX + 1):
        rates.take(status())
    assert len(rates.raw) == len(rates.wire) == RATES_MAX
    assert [len(kept) for kept in rates.of.values()] == [MIGRATION_RATES_MAX]
    rates.take(status(migrations=[migration(id="cc" * 16)]))
    assert {key: len(kept) for key, kept in rates.of.items()} == {"cc" * 16: 1}


def test_top_shows_some_peers_the_silent_ones_first_and_counts_the_others(status: Make, peer: Make) -> None:
    peers = [peer(name=f"hv{number}") for number in range(2, PEERS_MAX + 2)]
    text = drawn(status(), [], 160, View(peers=[*peers, peer(name="gone", reachable=False, code="unreachable")]))
    table = text[text.index("\n Peer ") :].splitlines()[3:]
    assert [line.split()[0] for line in table[:PEERS_MAX]] == ["gone", *(one.name for one in peers[: PEERS_MAX - 1])]
    assert "1 more peer" in text
    assert "more peer" not in drawn(status(), [], 160, View(peers=peers))
