"""Training of the neural forecasters with torch; the agent never imports it.

The rule: what comes out is an array for each name of `weights.Architecture.shapes` and nothing of torch's. The data,
the normalisation and the outputs are those of `bandwidth.features`, so that numpy's inference sees what training saw.
"""
