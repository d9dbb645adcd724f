"""The suite ass, with few commits: every case, every metric, sensible values."""

import pytest

from bench.frame import Options
from bench.suites import ass
from dwcp_migrate.errors import NotFoundError


def test_all_cases_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ass, "COMMITS", dict.fromkeys(ass.SIZES, 400))
    rows = {(row.case, row.metric): row.value for row in ass.rows(Options(quick=True))}
    cases = [f"raft/3/{size}{fsync}" for size in ass.SIZES for fsync in ("", "/fsync-off")]
    cases += [f"etcd/3/{size}" for size in ass.SIZES]
    expected = {(case, metric) for case in cases for metric in ("commit_p50_ms", "commit_p99_ms", "commits_per_s")}
    expected |= {
        ("broadcast/3", "all_applied_p50_ms"),
        ("election/3", "sigkill_p50_ms"),
        ("election/3", "vanish_p50_ms"),
        ("fdatasync", "sync_p50_ms"),
    }
    sync = {key: rows.pop(key) for key in list(rows) if key[0].startswith("sync/")}
    assert {case for case, _ in sync} == {"sync/1/3/cold", "sync/1/3/same", "sync/1/3/1%"}
    assert rows.keys() == expected
    assert all(rows[key] > 0 for key in expected)
    assert rows["election/3", "vanish_p50_ms"] >= 300


def test_the_watch_for_elections_that_nothing_calls_for_is_a_case_of_its_own() -> None:
    (row,) = ass.rows(Options(quick=True, only="steady"))
    assert (row.case, row.metric, row.value) == ("steady/3", "spurious_elections", 0)


def test_an_unknown_case_is_said_with_those_that_there_are() -> None:
    with pytest.raises(NotFoundError, match="no case raft/4") as refused:
        ass.rows(Options(only="raft/4"))
    assert "steady/3" in refused.value.hint
