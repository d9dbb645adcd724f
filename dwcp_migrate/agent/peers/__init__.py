"""The other agents: their names and addresses, requests to them and answers for them.

Modules:
    addresses: addresses of the peers as they are now, names resolved
    client: asking side of control connections, kept for reuse
    directory: directory of the peers
    fleet_peers: hosts of the fleet's state as peers
    limits: limits of links that an operator commanded
    own_reach: this host as it publishes itself to the fleet
    probe_budget: bytes of measurements that each peer may have this host take in
    reach: the address at which a peer's agent answers
    throughput: measurement of the link to a peer
    watch: whether each peer answers, asked again and again
    server: answering side of control connections
"""
