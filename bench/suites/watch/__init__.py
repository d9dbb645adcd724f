"""Suite `watch`: a fleet under the service that relieves it, and what fleets use.

Modules:
    month: a month simulated, and loads out of bulk statistics
"""

from bench.suites.watch.month import rows

__all__ = ["rows"]
