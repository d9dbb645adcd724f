"""Placement of domains on hosts (ITP): model, online placement, rebalancing, plans.

The rule here: core. A `Fleet` comes in, a `Plan` or a place goes out; no clock, no IO, no chance of its own.

    fleet -> model -> arrays        what is known, as a value and as arrays
    moves, search, chains, recreate kernels over the arrays (`kernel`: compiled if numba is there)
    online                          one domain or a batch, with reservations
    balance -> schedule -> planner  where everything should be, in which order, as a plan
    check, explain, referee         the oracle, the words, exact solvers
    generate, simulate              made-up fleets, virtual time
"""
