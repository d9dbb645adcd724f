"""Suite `known`: bytes and time that a page store at the destination spares.

Modules:
    migrations: migrations in the lab, each beside one without a store
    stream: a stream of guest memory through encoder and decoder, with a store and without
    simulated: the real index and statement at 64 GiB of store and 1 TiB of guest
"""

from bench.suites.known.migrations import rows

__all__ = ["rows"]
