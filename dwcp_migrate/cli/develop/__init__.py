"""Commands for development: lab, demo, benchmarks, training, replay."""
