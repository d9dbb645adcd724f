"""Data of the PBFT protocol: keys, memberships, messages, journal records, checkpoints.

Modules:
    checkpoints: checkpoints
    client_table: client table
    epoch_links: verification of links between memberships
    keys: digests, request authenticators and signatures
    log: window of sequence numbers under way
    membership: membership
    messages: messages between replicas and clients
    quorum: byzantine quorums
    records: journal records
    snapshot: replicated state at a checkpoint, cut into parts that each prove themselves
"""
