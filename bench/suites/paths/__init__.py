"""Suite `paths`: two ways between two hosts at once.

Modules:
    run: what is carried, and how the second way is disturbed
"""

from bench.suites.paths.run import rows

__all__ = ["rows"]
