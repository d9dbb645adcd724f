"""Cases `sync` of the suite `ass`: large objects to several hosts.

Modules:
    cases: the cases, and the hosts as they see them
    host: one host in a process of its own
"""
