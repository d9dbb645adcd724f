"""Limits that an operator commanded: kept, ended, bounded, and never above the configured ones."""

from pathlib import Path

import pytest

from dwcp_migrate.agent.peers.limits import LIMITS_FILE, LIMITS_MAX, CommandedLimit, PeerLimits, lowest_limit
from dwcp_migrate.errors import DwcpError


def rate_of(limits: PeerLimits, peer: str, now: float) -> float:
    found = limits.of_peer(peer, now)
    return found.bytes_per_s if found else 0.0


def test_a_limit_outlives_the_agent_until_it_is_taken_off(tmp_path: Path) -> None:
    PeerLimits(tmp_path).put("HV2", CommandedLimit(bytes_per_s=5e6), now=100)
    again = PeerLimits(tmp_path)
    assert rate_of(again, "hv2", now=1e9) == 5e6
    again.put("hv2", None, now=200)
    assert rate_of(PeerLimits(tmp_path), "hv2", now=300) == 0.0


def test_a_limit_for_a_time_ends_by_itself(tmp_path: Path) -> None:
    limits = PeerLimits(tmp_path)
    limits.put("hv2", CommandedLimit(bytes_per_s=5e6, until=160), now=100)
    assert rate_of(limits, "hv2", now=159.9) == 5e6
    assert rate_of(limits, "hv2", now=160) == 0.0
    limits.put("hv3", CommandedLimit(bytes_per_s=1e6), now=200)
    assert "hv2" not in (tmp_path / LIMITS_FILE).read_text()


@pytest.mark.parametrize("text", ["", "[]", "\xff", '{"hv2": 5}'])
def test_a_file_that_cannot_be_read_limits_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / LIMITS_FILE).write_text(text, encoding="latin-1")
    assert rate_of(PeerLimits(tmp_path), "hv2", now=0) == 0.0


def test_a_limit_that_cannot_be_kept_is_refused_and_not_in_force(tmp_path: Path) -> None:
    limits = PeerLimits(tmp_path / "missing")
    with pytest.raises(DwcpError, match="No such file"):
        limits.put("hv2", CommandedLimit(bytes_per_s=5e6), now=0)
    assert rate_of(limits, "hv2", now=0) == 0.0


def test_limits_are_bounded() -> None:
    limits = PeerLimits()
    for number in range(LIMITS_MAX):
        limits.put(f"hv{number}", CommandedLimit(bytes_per_s=5e6), now=0)
    with pytest.raises(DwcpError, match=str(LIMITS_MAX)):
        limits.put("one-more", CommandedLimit(bytes_per_s=5e6), now=0)
    limits.put("hv1", CommandedLimit(bytes_per_s=6e6), now=0)


def test_the_lowest_limit_holds_and_none_is_none() -> None:
    assert lowest_limit(0.0, 5.0, 3.0) == 3.0
    assert lowest_limit(0.0, 0.0) == 0.0
