"""The PBFT protocol, without I/O: a replica, a client, and what both verify."""
