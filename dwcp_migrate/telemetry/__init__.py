"""What the agent tells its operator: Prometheus metrics and log lines. Never a byte of guest memory."""
