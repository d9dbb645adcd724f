"""Benchmarks: `python -m bench SUITE`; results with their machine, commit and command stand in `bench/results`.

Modules:
    compare_qemu: encoder and decoder against QEMU's own multifd zstd, level 1, on the same memory in the same run
    compare_rebalancer: ours against Meta's `rebalancer` (PyPI), same fleets, one run
    page: the page of figures beside the specification, docs/benchmarks.md
    plots: its pictures
    specification: its rows, each with the place of our figure or the reason why there is none
    event_loop: event loop of a replica's or client's process
    fleets: fleets made for measurements, their simulation
    frame: frame of all benchmark suites
    links: simulated link for measurements of the allocator
    sizing: memory and CPU of one migration by grant and link rate
    merge: one report of slices of a run that were played beside each other
    slices: long runs in slices, and what they counted so far
    roadef: the ROADEF/EURO 2012 machine reassignment challenge
    suites: benchmark suites, one module each, found by `bench.frame`
"""
