"""Plans that this agent keeps and carries out.

Modules:
    book: plans as they are kept, in the fleet's state or in this host's
    carrier: the helper process that carries a plan out, started wherever its lease is free
    document: a record that agents keep together, at its revisions
    fleet_watcher: the service that relieves the fleet by itself
    look_loop: the loop of both services
    warmer: warm-ups of this host's guests ahead of a plan's moves
    watch_book: the record of the service that relieves the fleet
"""
