"""Shares of a link: the rate of each migration, and their order.

Modules:
    allocator: shares a link between the migrations that cross it, by need first and by weight for the rest
    ceiling: rates of all migrations of a link under a ceiling
    ordering: in which order migrations over one link are soonest done
    usage: estimate of the rate that a migration can use, from the rate that it used
"""
