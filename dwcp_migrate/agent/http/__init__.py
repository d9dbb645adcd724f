"""The agent's HTTP servers: the control API on its Unix socket, and Prometheus metrics.

Modules:
    answers: answers as JSON, and numbers out of a query
    handlers: control API, part by part
    host_facts: facts about this host that `doctor` judges
    metric_table: every metric that the agent exports, in one table
    metrics_server: listener of the metrics, over TLS and behind a password where configured
    metrics: agent's status as Prometheus text
    routes: routes of the control API in one table, and its OpenAPI description
    server: control API and the metrics over HTTP
    status: read-only views of the agent
"""
