"""Bulk synchronisation: a large object brought to several hosts at once, in chunks that are named by their digest.

Only what a host lacks travels, from any host that has it: of n hosts that fetch the same object each takes a share from
the origin and passes it on, so that the origin sends each byte about once.

Modules:
    core: cutting, naming and asking, without I/O
    io: chunks of files over TLS: serving and fetching
"""
