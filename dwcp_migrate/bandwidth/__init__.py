"""PBA, predictive bandwidth allocation: what a link will carry, what a guest will write, and what follows from both.

The rule: nothing here reads a clock, a socket or a file. Measurements come in as numbers, forecasts, rates and
predictions go out as numbers; the agent carries them from and to where they belong.

    measurements --> series (bounded) --> Panel: experts -> bands -> mix -> conformal correction --> quantiles
                                                                                                         |
    rates         <-- allocator <-- demands of the migrations <-- low quantile of the link --------------+
    time, downtime <-- predictor <-- facts about the guest <-- quantiles of link and dirty rate ---------+
"""
