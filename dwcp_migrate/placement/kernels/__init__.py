"""Compiled searches over the placement arrays: single moves, chains, ruin and recreate."""
