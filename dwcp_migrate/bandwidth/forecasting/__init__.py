"""Forecasts of a series: point forecasters, their mix, and calibrated bands around it.

Modules:
    bands: quantiles around the numbers of the point forecasters
    conformal: correction that keeps the bands' coverage under drift
    ensemble: puts the experts together
    evaluation: scores of forecasters on given series
    features: input features of the neural forecasters
    lifecycle: promotion of models
    mix: weighted mix of the forecasters
    neural: neural forecasters in numpy
    panel: forecast of many series
    point_forecasters: forecasters of one number for each target
    priors: initial state of the panel of forecasters
    regime: state of a series after a silence
    resampling: from samples at ten a second to steps of one second, for many series at once
    synthetic: series of known kinds, for training, tests and the benchmark
    weights: weights of the neural forecasters as `.npz` bytes
    windows: last `DEPTH` samples of many series, each at its own pace
"""
