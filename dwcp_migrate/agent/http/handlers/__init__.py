"""The control API's handlers, one module for each part of it.

Modules:
    check: control API of the trial of a peer
    cluster: control API of the fleet's shared state
    limit: control API of the limits of links
    placement: control API of the shared constraints
    plan: control API of the plans that are kept
    prediction: control API of predictions
    recap: control API of the sums over migrations
    repair: control API of operators' repairs
    warm: control API of the warm-ups of peers' page stores
    watch: control API of the service that relieves the fleet
"""
