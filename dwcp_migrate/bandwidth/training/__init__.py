"""Training of the neural forecasters with torch; the agent never imports it.

The rule: what comes out is an array for each name of `weights.Architecture.shapes` and nothing of torch's. The data,
the normalisation and the outputs are those of `bandwidth.features`, so that numpy's inference sees what training saw.

Modules:
    ensembles: trains everything that a panel begins with
    examples: turns series into what the networks learn from
    fit: training loops
    host: training run as the command line and the agent start it
    networks: networks in torch
"""
