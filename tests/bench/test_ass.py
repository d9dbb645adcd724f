"""The suite ass, with few commits: every case, every metric, sensible values."""

import pytest

from dwcp_migrate.bench import ass
from dwcp_migrate.bench.frame import Options


def test_all_cases_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ass, "COMMITS", dict.fromkeys(ass.SIZES, 400))
    rows = {(row.case, row.metric): row.value for row in ass.rows(Options(quick=True))}
    cases = [f"raft/3/{size}{fsync}" for size in ass.SIZES for fsync in ("", "/fsync-off")]
    expected = {(case, metric) for case in cases for metric in ("commit_p50_ms", "commit_p99_ms", "commits_per_s")}
    expected |= {
        ("broadcast/3", "all_applied_p50_ms"),
        ("election/3", "sigkill_p50_ms"),
        ("election/3", "vanish_p50_ms"),
    }
    assert rows.keys() == expected | {("election/3", "spurious_elections")}
    assert all(rows[key] > 0 for key in expected)
    assert rows["election/3", "vanish_p50_ms"] >= 300
