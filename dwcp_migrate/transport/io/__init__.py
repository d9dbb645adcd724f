"""Sockets and threads that carry the multi-stream protocol."""
