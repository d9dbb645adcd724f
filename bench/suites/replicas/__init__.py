"""Replicated stores in processes of their own, for measurements and tests: this project's, and etcd.

Modules:
    cluster: several Raft replicas, each on a loopback address
    etcd: members of an etcd, the same values put there
    replica: one Raft replica, told what to do by lines of JSON
"""
