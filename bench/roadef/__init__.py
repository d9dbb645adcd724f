"""The ROADEF/EURO 2012 machine reassignment challenge: reader, kernel, search.

Modules:
    arrays: machine reassignment as arrays
    instance: machine reassignment, the ROADEF/EURO challenge of 2012
    kernel: kernel of the annealing for machine reassignment
    reassign: machine reassignment of the ROADEF/EURO challenge 2012
    search: simulated annealing for machine reassignment whose capacities have prices
"""
