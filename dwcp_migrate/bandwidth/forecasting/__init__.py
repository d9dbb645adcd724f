"""Forecasts of a series: point forecasters, their mix, and calibrated bands around it."""
