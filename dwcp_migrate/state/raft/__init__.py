"""The Raft engine: pysyncobj over the agents' own mutually authenticated connections.

Modules:
    command_times: times that a leader lets into the log
    disk: files of a replica
    elections: elections
    engine: the Raft engine
    log_file: log of a replica on disk
    message_guard: guard around the library's messages
    messages: messages between replicas
    origin: voters that a fleet began with
    peer_connections: connections between replicas
    pysyncobj: pysyncobj with its wire and its disk replaced
    pysyncobj_messages: the Raft library's messages (dictionaries) in the schema of the wire
    replica: one Raft replica
    restore: begin of a replica's directory with a backup
    snapshots: snapshots
"""
