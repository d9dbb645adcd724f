"""A few lines in each window, and the number of those left out with the next."""

from dwcp_migrate.agent.log_budget import LogBudget


def test_lines_past_the_budget_are_left_out_and_counted_in_the_next_window() -> None:
    budget = LogBudget(lines=2, window_s=10.0)
    assert [budget.spend(now) for now in (0.0, 1.0, 2.0, 9.9)] == [0, 0, None, None]
    assert [budget.spend(now) for now in (10.0, 10.1, 10.2)] == [2, 0, None]
    assert budget.spend(100.0) == 1
