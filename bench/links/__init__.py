"""A simulated link for measurements of the allocator.

Modules:
    simulation: migrations over one link in virtual time, driven by the allocator or by a fixed order
"""
