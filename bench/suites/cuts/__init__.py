"""Suite `cuts`: migrations whose link is cut for a while.

Modules:
    run: what is done, and what came of it
"""

from bench.suites.cuts.run import rows

__all__ = ["rows"]
