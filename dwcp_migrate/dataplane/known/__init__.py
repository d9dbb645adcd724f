"""The page store in a session: what the destination states, what the source makes of it, what both keep.

    destination  StateOfStore: loads the scope's volumes in a thread, states them piece by piece, fetches named pages
    source       StatedPages: takes the pieces, tells the encoder which pages are likely there
    both         keeping: when the session is over, the pages of the caches go to this host's store

The rule: none of it is waited for. A migration begins without a statement, goes on without a store, and ends before
anything is kept; what is missing costs bytes, never the guest.

Modules:
    stating: the destination's half
    stated: the source's half
    keeping: what both do at the end
"""
