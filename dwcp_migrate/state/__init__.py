"""ASS: the fleet's one record of hosts, domains, tickets, leases and limits, replicated by Raft or kept in etcd."""
