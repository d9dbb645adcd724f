"""The benchmark suites, one module each, found by `bench.frame`."""
