"""The contract of the agent's control API: what its answers look like, and a client for it.

Modules:
    client: the CLI's side of the control API
    cluster: answers of the control API about the cluster state
    kept_record: reading of a record that agents keep
    course: course of a migration, in points
    limits: answers of the control API about the limits of links
    migration: migration's record
    peer_check: answer of the control API about a peer that was tried
    plans: plans that agents carry out
    recap: sums over ended migrations
    schema: answers of the control API
    unix_http: HTTP over the agent's unix socket
    usage: answers of the control API about memory and the page store
    warm: warm-ups of page stores
    warm_plan: a plan whose guests are warmed up before they move
    words: values in the words that people read
    watch: the service that relieves the fleet by itself
"""
