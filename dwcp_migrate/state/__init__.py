"""ASS: the fleet's one record of hosts, domains, tickets, leases and limits, replicated by Raft or kept in etcd.

Modules:
    engine: interface of the engine that holds the cluster state
    etcd: etcd engine
    fake: engine without log, disk or network
    fleet: fleet's model, without I/O
    raft: the Raft engine
"""
