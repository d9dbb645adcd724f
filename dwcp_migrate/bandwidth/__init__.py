"""PBA, predictive bandwidth allocation: forecasts of links and guests, and the rates and predictions that follow.

Forecasting, prediction and allocation are pure: measurements come in as numbers, forecasts, rates and predictions go
out as numbers. `storage` reads and writes files, `training` uses torch.

    measurements --> series (bounded) --> Panel: experts -> bands -> mix -> conformal correction --> quantiles
                                                                                                         |
    rates         <-- allocator <-- demands of the migrations <-- low quantile of the link --------------+
    time, downtime <-- predictor <-- facts about the guest <-- quantiles of link and dirty rate ---------+

Modules:
    forecasting: forecasts of series
    prediction: duration, downtime and bytes of a migration
    allocation: shares of a link
    storage: series and model weights on disk
    training: training of the neural forecasters
    quantiles, targets: a number known as quantiles; the horizons of a forecast
    outages: dead seconds of a link, apart from its rate in the others
"""
