"""Records of migrations: the registry of running ones, the history of ended ones, and their domains.

Modules:
    domain_matching: match of a migration to its domain
    domain_tracker: ties migrations to libvirt's domains, and follows libvirt's reports of progress and result
    history: ended migrations on disk
    memory_budget: one budget of memory for all sessions of this host
    observed: migrations that this agent only observes
    outgoing_jobs: libvirt's outgoing migration jobs, and which of them no record follows
    registry: agent's books
    running_store: running migrations as the next agent will find them
    uncaught: records of migrations that leave this host past the agent
    warm_book: warm-ups from this host
"""
