"""Suite `watch`: a fleet under the service that relieves it, and the measured use of fleets.

Modules:
    month: a month simulated, and loads out of bulk statistics
"""

from bench.suites.watch.month import rows

__all__ = ["rows"]
