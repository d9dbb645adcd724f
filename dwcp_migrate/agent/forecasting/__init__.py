"""Forecasts at work: the loop that samples links and guests, predictions of migrations, shares of each link.

Modules:
    load_meter: load of this host and its guests, by two looks at counters
    load_watch: the agent's look at loads, and what others are told of them
    loop: agent's foresight at work
    predictions: predictions as the agent makes them
    rate_control: rate control of migrations that share a link
    series: measured series of this host and their forecasts for the next minute
"""
