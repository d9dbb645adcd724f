from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.frame import Options
from bench.slices import Slices
from dwcp_migrate.errors import ConfigError


@dataclass(slots=True)
class Counted:
    counts: Counter[str] = field(default_factory=Counter)
    times_s: list[float] = field(default_factory=list)


def play(slices: Slices, tally: Counted, at_most: int) -> list[int]:
    done: list[int] = []
    for number in slices.numbers(tally):
        if len(done) == at_most:
            break
        done.append(number)
        tally.counts["migrations"] += 1
        tally.times_s.append(float(number))
    return done


def test_a_run_goes_on_where_the_slice_before_ended(tmp_path: Path) -> None:
    options = Options(first=10, tally=str(tmp_path / "kept" / "run.tally"))
    first = Slices(options, 5).resume(Counted())
    assert play(Slices(options, 5), first, at_most=3) == [10, 11, 12]
    second = Slices(options, 5).resume(Counted())
    assert second.times_s == [10.0, 11.0, 12.0]
    assert play(Slices(options, 5), second, at_most=9) == [13, 14]
    assert Slices(options, 5).resume(Counted()).counts["migrations"] == 5


def test_a_slice_without_a_file_does_all_and_keeps_nothing(tmp_path: Path) -> None:
    assert play(Slices(Options(), 3), Counted(), at_most=9) == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def test_a_slice_whose_time_is_over_begins_no_migration(tmp_path: Path) -> None:
    options = Options(tally=str(tmp_path / "run.tally"), minutes=1e-9)
    assert play(Slices(options, 3), Counted(), at_most=9) == []


def test_the_tally_of_another_run_is_refused(tmp_path: Path) -> None:
    kept = str(tmp_path / "run.tally")
    play(Slices(Options(seed=1, tally=kept), 2), Counted(), at_most=9)
    with pytest.raises(ConfigError, match="another run"):
        Slices(Options(seed=2, tally=kept), 2).resume(Counted())
