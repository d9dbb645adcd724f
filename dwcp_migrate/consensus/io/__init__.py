"""Sockets, files and loops around the PBFT core: a node that runs a replica, a node that runs a client.

Modules:
    budget: budget of signature checks for each peer
    channel: one TLS connection between a replica and a replica or client
    client_node: client's process side
    connector: stays connected to replicas
    greeting: greeting of a channel: a hello that binds the signing key of its sender to the TLS connection
    journal_file: journal on a disk
    key_file: host's secret key on a disk
    replica_node: replica's process side
    secure_socket: TLS over a non-blocking socket that this module reads and writes itself
"""
