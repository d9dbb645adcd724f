"""Suite `restarts`: agents ended in the midst of migrations.

Modules:
    run: what is planned, done and counted
"""

from bench.suites.restarts.run import rows, rows_of

__all__ = ["rows", "rows_of"]
