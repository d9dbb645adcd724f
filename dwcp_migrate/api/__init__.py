"""The contract of the agent's control API: what its answers look like, and a client for it."""
