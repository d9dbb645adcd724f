import numpy as np
import pytest

from dwcp_migrate.bandwidth.forecasting.windows import DEPTH, VALUE_MIN, SeriesWindow

ONE = np.array([0])


def test_a_window_holds_the_newest_samples_also_past_the_depth() -> None:
    history = SeriesWindow(2)
    for value in range(1, DEPTH + 50):
        history.push(np.array([1]), np.array([float(value)]))
    np.testing.assert_array_equal(history.window(np.array([1]), 3)[0], [DEPTH + 47, DEPTH + 48, DEPTH + 49])
    assert len(history.window(np.array([1]), DEPTH)[0]) == DEPTH
    assert history.last(np.array([1]))[0] == DEPTH + 49


def test_before_the_first_samples_lies_the_first_one() -> None:
    history = SeriesWindow(1)
    history.push(ONE, np.array([5.0]))
    history.push(ONE, np.array([7.0]))
    np.testing.assert_array_equal(history.window(ONE, 4)[0], [5, 5, 5, 7])


def test_a_rate_of_nothing_is_very_small_and_no_number_is_refused() -> None:
    history = SeriesWindow(1)
    history.push(ONE, np.array([0.0]))
    assert history.last(ONE)[0] == VALUE_MIN
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            history.push(ONE, np.array([wrong]))


def test_a_slot_that_was_given_away_knows_nothing_of_before() -> None:
    history = SeriesWindow(1)
    for value in (1.0, 2.0, 3.0):
        history.push(ONE, np.array([value]))
    history.forget(0)
    history.push(ONE, np.array([9.0]))
    assert (history.window(ONE, 8) == 9.0).all()
