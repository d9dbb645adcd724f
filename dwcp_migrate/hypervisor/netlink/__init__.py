"""Requests to the kernel over netlink, encoded by hand.

Modules:
    attributes: attributes of messages, encoded and cut
    expressions: expressions of nftables rules
    sock_diag: control group of the process that opened a connection
    nftables: one socket to nftables, whole transactions
"""
