"""The agent's HTTP servers: the control API on its Unix socket, and Prometheus metrics.

Modules:
    check_handlers: control API of the trial of a peer
    cluster_handlers: handlers of the control API's part about the fleet's shared state
    host_facts: facts about this host that `doctor` judges
    limit_handlers: control API of the limits of links, and of warm-ups
    metric_table: every metric that the agent exports, in one table
    metrics_server: listener of the metrics, over TLS and behind a password where configured
    metrics: agent's status as Prometheus text
    placement_handlers: control API of the shared constraints
    plan_handlers: control API of the plans that are kept
    prediction_handlers: control API of predictions
    recap_handlers: control API of the sums over migrations
    repair_handlers: control API of operators' repairs
    routes: routes of the control API in one table, and its OpenAPI description
    server: control API and the metrics over HTTP
    status: read-only views of the agent
    watch_handlers: control API of the service that relieves the fleet
"""
