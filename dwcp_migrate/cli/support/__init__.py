"""Options and output that all commands share."""
