"""Bulk synchronisation between hosts: files, sockets and threads.

Blocking TLS sockets, one thread a connection, because nearly all of the work is encryption, digests and writes, which
release the interpreter's lock: a byte costs less of a core than through asyncio's streams, and an event loop has
nothing to do with it.

Modules:
    held: objects that this host has, or is fetching
    local: an object's file: described, compared, replaced
    pace: rate that all connections of a host keep together
    connection: asking side of one connection
    server: answering side
    fetch: one object fetched from several hosts at once
"""
