"""The suite acp on its smallest group: real processes, mutual TLS, and figures of the names that are promised."""

import pytest

from bench.frame import Options
from bench.suites import acp
from dwcp_migrate.errors import NotFoundError


def test_the_quick_suite_gives_every_kind_of_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acp, "OPERATIONS", {1: 80, 10: 160, 64: 640})
    monkeypatch.setattr(acp, "BATCHES", acp.BATCHES[1:])
    monkeypatch.setattr(acp, "FIXED_BATCHES", ())
    rows = acp.rows(Options(quick=True))
    assert {row.case for row in rows} == {
        *(f"pbft/4/{faulty}/adaptive/{in_flight}" for faulty in (0, 1) for in_flight in (1, 10, 64)),
        *(f"durable/4/0/adaptive/{in_flight}" for in_flight in (1, 10, 64)),
        *("conflict/4/4", "certificate/4", "quorum/4", "quorum/7", "quorum/10"),
    }
    assert {(row.metric, row.unit) for row in rows} == {
        ("latency_p50_ms", "ms"),
        ("latency_p99_ms", "ms"),
        ("ops_per_s", "1/s"),
        ("verify_us", "us"),
        ("check_ns", "ns"),
    }
    assert all(row.value > 0 for row in rows)


def test_only_the_cases_that_were_asked_for_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acp, "OPERATIONS", {1: 80, 10: 160, 64: 640})
    assert {row.case for row in acp.rows(Options(quick=True, only="quorum/1"))} == {"quorum/10"}
    assert {row.case for row in acp.rows(Options(quick=True, only="pbft/4/0/4/1"))} == {
        "pbft/4/0/4/1",
        "pbft/4/0/4/10",
    }
    with pytest.raises(NotFoundError, match="no case raft"):
        acp.rows(Options(quick=True, only="raft"))
