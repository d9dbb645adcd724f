"""Shares of a link: who gets how much of it, and in which order."""
