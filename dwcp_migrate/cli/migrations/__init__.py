"""Commands about migrations: start, watch, predict, look back."""
