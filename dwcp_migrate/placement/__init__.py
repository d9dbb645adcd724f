"""Placement of domains on hosts (ITP): model, online placement, rebalancing, plans.

Pure: a `Fleet` comes in, a `Plan` or a host goes out; no clock, no I/O, no randomness of its own.

Modules:
    fleet, cost, plan: the values: hosts, domains and rules; the price of a move; a plan and its steps
    model, arrays: a fleet as arrays that kernels work on
    amounts: resources that hosts may promise and that domains use
    kernel, kernels: searches over the arrays, compiled where numba is installed
    online: a place for one domain or a batch, with reservations
    balance, schedule, planner: the target of each domain, the order of the moves, and the plan of both
    watch_settings: settings of the watch over a fleet
    contention: hosts that are hot for long, and the few moves that relieve them
    solver: exact optima of small plans
    check, explain: an independent check of an assignment; the reasons of a plan in words
"""
