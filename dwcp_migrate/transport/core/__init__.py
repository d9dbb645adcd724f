"""The multi-stream protocol, without I/O: frames, queues, channel health, rates."""
