"""The agent's forecasts: the loop that samples links and guests, predictions of migrations, and the shares of each link."""
