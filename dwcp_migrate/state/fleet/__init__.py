"""The fleet's model, without I/O: hosts, domains, tickets, leases, and the commands that change them."""
