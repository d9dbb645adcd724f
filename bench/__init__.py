"""Benchmarks: `python -m bench SUITE`; results with their machine, commit and command stand in `bench/results`."""
