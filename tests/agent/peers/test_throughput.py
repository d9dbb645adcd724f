"""Bounds of a measurement of a link: how much, how fast beside migrations, and what of it counts."""

import pytest

from dwcp_migrate.agent.peers.probe_budget import PEERS_MAX, ProbeBudget
from dwcp_migrate.agent.peers.throughput import RATE_BESIDE_MIN, rate_beside, steady_rate


def test_a_peer_is_taken_to_its_budget_and_no_byte_further_until_the_window_is_over() -> None:
    budget = ProbeBudget(bytes_max=100, window_s=60)
    assert budget.take("hv2", 60, now=0)
    assert budget.take("hv2", 40, now=1)
    assert not budget.take("hv2", 1, now=59)
    assert budget.take("hv3", 100, now=59), "each peer has its own"
    assert budget.take("hv2", 100, now=60)


def test_the_account_of_peers_is_bounded() -> None:
    budget = ProbeBudget(bytes_max=1)
    for number in range(PEERS_MAX + 10):
        assert budget.take(f"hv{number}", 1, now=0)
    assert len(budget._taken) == PEERS_MAX
    assert budget.take("hv0", 1, now=0), "the oldest made room"


@pytest.mark.parametrize(
    ("migrations", "wire", "ceiling", "expected"),
    [
        (0, 0.0, 0.0, 0.0),
        (0, 0.0, 5e6, 5e6),
        (1, 0.0, 0.0, RATE_BESIDE_MIN),
        (2, 100e6, 0.0, 5e6),
        (2, 100e6, 1e6, 1e6),
        (1, 1.0, 10.0, 10.0),
    ],
)
def test_a_measurement_stays_below_migrations_and_the_links_maximum(
    migrations: int, wire: float, ceiling: float, expected: float
) -> None:
    assert rate_beside(migrations, wire, ceiling) == expected


def test_the_rate_leaves_out_the_time_in_which_the_channels_grew() -> None:
    assert steady_rate([(0.0, 0), (3.0, 25), (4.0, 100)]) == 75.0
    assert steady_rate([(0.0, 0), (2.0, 100)]) == 50.0
    assert steady_rate([(0.0, 0)]) == 0.0
