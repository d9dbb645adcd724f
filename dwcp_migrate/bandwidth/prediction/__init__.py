"""Predictions of a migration: the guest, the pre-copy passes, duration, bytes and downtime.

Modules:
    advice: advice before a migration, with its reason
    calibration: calibration of predictions
    guest_model: model of a guest, learnt from its migrations
    precopy_model: guest under precopy as a fluid
    predictor: prediction of a migration
"""
