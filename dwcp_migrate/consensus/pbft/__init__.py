"""The PBFT protocol, without I/O: a replica, a client, and what both verify.

Modules:
    batching: size and moment of a proposal
    certificate: a decision with the signatures of a quorum, which anyone can verify
    client: PBFT client
    core: state that all parts of a replica share
    epochs: recording, serving and verifying the steps from one membership to the next
    execution: execution of decided requests, in order, once each
    membership_chain: the memberships of a group, verified link by link
    model: data of the PBFT protocol
    new_view: content of a new view
    normal_case: pre-prepare, prepare, commit
    reconfiguration: rules for a change of membership
    recovery: writing and reading a replica's journal
    replica: a replica, driven by step, tick and ready
    requests: requests that are not decided yet
    state_transfer: serving replicas that lag, and catching up
    view_change: leaving a view and entering the next
"""
