"""The page store in a session: the destination's statement, its use by the source, and the pages that both keep.

    destination  StateOfStore: loads the scope's volumes in a thread, states them piece by piece, fetches named pages
    source       StatedPages: takes the pieces, tells the encoder which pages are likely there
    both         keeping: when the session is over, the pages of the caches go to this host's store

The rule: nothing waits for the store. A migration begins without a statement, goes on without a store, and ends before
anything is kept; whatever is missing costs bytes, never the guest.

Modules:
    misled: rejections that a missing page explains
    stating: the destination's half
    stated: the source's half
    keeping: pages into the store, at the end
    warming: a guest's memory, read while it runs, in the place of a migration
    page_stream: its pages as the encoder takes them
"""
