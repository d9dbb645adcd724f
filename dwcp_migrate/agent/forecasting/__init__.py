"""Forecasts at work: the loop that samples links and guests, predictions of migrations, shares of each link.

Modules:
    loop: agent's foresight at work
    predictions: predictions as the agent makes them
    rate_control: rate control of migrations that share a link
    series: measured series of this host and their forecasts for the next minute
"""
