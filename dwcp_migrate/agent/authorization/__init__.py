"""Permission for a migration: tickets of the cluster state, certificates of the PBFT group, and their settlement.

Modules:
    absent_domains: schedule of questions for domains that do not run where the record says
    certificates: certificates of migrations
    engine_choice: choice of the engine that authorises a migration
    fleet_members: publishes where this host is, and finds the fleet's others
    fleet_state: agent's side of the fleet's state
    ownership: check that the host which brings a migration runs its domain
    permits: authorisation of a migration
    reconciler: settles what a crash or a lost quorum left open, by what libvirt says on the hosts themselves
    retry_queue: retry queue of notifications to the PBFT group
    ticket_ages: ages of open tickets, as this host has seen them
"""
