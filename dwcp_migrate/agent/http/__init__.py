"""The agent's HTTP servers: the control API on its Unix socket, and Prometheus metrics."""
