import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from dwcp_migrate.cli.migrations import top
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


def drawn(answer: Any, recent: list[Any], width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(top.draw(answer, recent, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_top_draws_running_and_ended_migrations(status: Make, ended: Make) -> None:
    text = drawn(status(), [ended()])
    assert "hv1  running" in text
    assert "guest memory 800.0 Mbit/s, on the wire 160.0 Mbit/s" in text
    assert "75 %" in text
    assert "120 ms" in text


@pytest.mark.parametrize("width", [60, 80, 90, 100, 120, 150, 200])
def test_top_leaves_columns_out_rather_than_cut_numbers(status: Make, migration: Make, ended: Make, width: int) -> None:
    running = [migration(), migration(domain="tls", passthrough_reason="tls", state="passthrough")]
    text = drawn(status(migrations=running), [ended(domain="a-name-of-more-than-a-few-characters")], width)
    assert "precopy 2" in text
    assert "75 %" in text
    assert "800.0 Mbit/s" in text
    assert "completed" in text
    assert " 11 s" in text
    assert max(map(len, text.splitlines())) <= width


def test_top_of_an_idle_agent_says_so(status: Make) -> None:
    assert "No migration under way." in drawn(status(migrations=[]), [])
