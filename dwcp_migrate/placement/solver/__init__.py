"""Exact solvers of small plans.

Modules:
    exact: a program for CP-SAT, where a plan is asked to be exact
    tiny: an exhaustive search of tiny fleets, within a budget of nodes
"""
