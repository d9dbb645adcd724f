"""Messages between two agents, and between an agent and its data processes."""
