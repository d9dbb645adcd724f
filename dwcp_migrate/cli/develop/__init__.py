"""Commands for development: lab, demo, benchmarks, training, replay.

Modules:
    bench: `dwcp-migrate bench`
    demo: `dwcp-migrate demo`
    lab: `dwcp-migrate lab`
    replay: `dwcp-migrate replay`
    train: `dwcp-migrate train`
"""
