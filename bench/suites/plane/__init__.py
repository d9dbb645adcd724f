"""Suite `plane`: parts of the data plane.

Modules:
    parts: the gate, the serial step, leaving a link
"""

from bench.suites.plane.parts import rows

__all__ = ["rows"]
