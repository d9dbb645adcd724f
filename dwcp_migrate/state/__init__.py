"""ASS: the fleet's one record of hosts, domains, tickets, leases and limits, replicated by Raft or kept in etcd.

Modules:
    engine: interface of the engine that holds the cluster state
    engine_status: status of that engine, and of the hosts that keep it
    etcd: etcd engine
    fake: engine without log, disk or network
    fleet: fleet's model, without I/O
    raft: the Raft engine
"""
