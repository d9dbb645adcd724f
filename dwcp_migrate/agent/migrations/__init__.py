"""Outgoing and incoming migrations: admission, data processes, liveness of the peer.

Modules:
    admission: all incoming migrations: what a peer's agent may begin here
    about_host: answers to peers' requests that are about this host
    adoption: takes over migrations that the agent before this one left running
    data_process: handle of a data process at work on one migration
    dispatcher: all outgoing migrations, by the address and port that their connections dial
    incoming: the destination side: from what it was granted to the end
    left_alone: peers towards which nothing is redirected, because QEMU alone is faster
    life_cycle: stages of a migration's life, and the course that both sides share
    local_relay: relay on threads of the agent, where no data process is to be had
    outgoing: the source side: from the first caught connection to the end
    peer_liveness: failure detector for the peer of a migration all of whose channels are gone
    stand_in: the data process that holds a migration's connections while it is set up
    step_aside: the decision to leave a migration alone, because the link outruns the pipeline
    warm_outgoing, warm_incoming: warm-ups of page stores, from here and to here
    warm_process: data process of a warm-up
"""
