"""The contract of the agent's control API: what its answers look like, and a client for it.

Modules:
    client: the CLI's side of the control API
    cluster: answers of the control API about the cluster state
    kept_record: reading of a record that agents keep
    migration: migration's record
    plans: plans that agents carry out
    schema: answers of the control API
    watch: the service that relieves the fleet by itself
"""
