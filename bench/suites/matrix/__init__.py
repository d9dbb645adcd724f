"""Suite `matrix`: all ways to migrate, over many links.

Modules:
    slices: what is played and kept
    report: the table and the picture
"""

from bench.suites.matrix.slices import rows

__all__ = ["rows"]
