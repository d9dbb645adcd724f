"""Fleets made for measurements, their simulation, and a referee for exact optima.

Modules:
    generate: fleets made up
    libvirt_answers: what the libvirtds of a large fleet say
    month: a fleet over days, with and without a balancer
    probe: kernel
    referee: exact answers for small fleets
    simulate: fleet in virtual time, driven by the code that drives a real one
"""
