"""The suite sync, a run of each kind: every metric, and the shares of bytes that it exists for."""

import pytest

from bench.suites.sync import cases as sync

OF_COLD = {"time_ms", "in_turn_ms", "time_over_in_turn", "origin_share", "cores_busy", "in_turn_cores_busy"}
OF_COLD |= {"cpu_over_in_turn", "describe_ms", "gbit_time_ms", "gbit_time_over_in_turn"}


def test_cases_are_sizes_by_hosts_by_kinds() -> None:
    assert sync.case_names(quick=True) == ["sync/1/3/cold", "sync/1/3/same", "sync/1/3/1%"]
    assert len(sync.case_names(quick=False)) == 27


def measured(kind: str) -> dict[str, float]:
    return {row.metric: row.value for row in sync.measure(f"sync/1/3/{kind}", quick=True)}


def test_cold_case_is_measured_beside_one_after_the_other() -> None:
    rows = measured("cold")
    assert rows.keys() == OF_COLD
    assert all(value > 0 for value in rows.values())
    assert rows["origin_share"] < 1.1


@pytest.mark.parametrize(("kind", "share"), [("same", 0.01), ("1%", 0.03)])
def test_what_is_there_already_costs_a_small_share_of_the_bytes(kind: str, share: float) -> None:
    rows = measured(kind)
    assert rows.keys() == {"time_ms", "bytes_share"}
    assert 0 < rows["bytes_share"] < share
