"""Predictions of a migration: the guest, the pre-copy passes, duration, bytes and downtime."""
