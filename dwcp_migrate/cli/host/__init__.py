"""Commands about this host: agent, status, checks, configuration, certificates."""
