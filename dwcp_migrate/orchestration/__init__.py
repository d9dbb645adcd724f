"""Execution of plans: the fleet as it is, moves of domains, and the journal from which a plan resumes.

Modules:
    carried_plan: execution of a kept plan by the agent that holds the lease
    compatibility: hosts that cannot run a guest, and why
    executor: execution of a plan, step by step
    failures: refused migrations, as a plan remembers them
    fleet_constraints: rules, limits and moves in flight of the cluster state, applied to a fleet
    fleet_source: sources of a fleet
    measured_load: load of the domains now, as libvirt counts it
    move_cost: cost of a move, as predicted or measured by the local agent
    plan_journal: journal of a plan, from which it resumes
    plan_progress: a plan's record as it changes
    plan_store: plans that are kept, by way of the local agent
    shared_state: the cluster state as placement reads it, through the local agent
    storage: storage that hosts share, and room for disks that migrations copy
    watch_round: one look of the service that relieves hot hosts
    watched_migration: one migration, with a bound on its time
    workspace: fleet, rules, forecasts and journal of one command
"""
