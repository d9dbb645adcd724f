"""The fleet's model, without I/O: hosts, domains, tickets, leases, and the commands that change them.

Modules:
    backup: file with a backup of the fleet's record
    commands: commands that change the cluster state
    documents: small texts that the fleet keeps for its agents
    fleet_clock: bound on the time that commands may bring
    invariants: invariants of the cluster state
    leases: leases and reservations
    machine: state machine
    model: model of the cluster state
    readers: hosts that do not read a command
    repairs: operators' repairs of the state
    replicated: model as the log drives it
    tickets: tickets
"""
