"""The other agents: their names and addresses, requests to them and answers for them.

Modules:
    addresses: addresses of the peers as they are now, names resolved
    client: asking side of control connections, kept for reuse
    directory: directory of the peers
    reach: the address at which a peer's agent answers
    server: answering side of control connections
"""
