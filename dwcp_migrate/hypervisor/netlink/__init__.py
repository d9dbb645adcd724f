"""Requests to the kernel over netlink, encoded by hand.

Modules:
    attributes: attributes of messages, encoded and cut
    expressions: expressions of nftables rules
    nftables: one socket to nftables, whole transactions
"""
