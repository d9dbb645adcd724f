"""Outgoing and incoming migrations: admission, data processes, liveness of the peer."""
