"""The etcd engine: the fleet's state in an etcd that the fleet runs already.

Modules:
    engine: the etcd engine
    gateway: client of etcd's JSON gateway
    liveness: signs of life by etcd's leases
    snapshots: snapshots in etcd
"""
