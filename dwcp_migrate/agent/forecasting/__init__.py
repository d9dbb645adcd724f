"""Forecasts at work: the loop that samples links and guests, predictions of migrations, shares of each link."""
