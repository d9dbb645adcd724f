"""Sockets, files and loops around the PBFT core: a node that runs a replica, a node that runs a client."""
