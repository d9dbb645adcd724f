"""The agent: takes redirected connections, authorises migrations, supervises data processes, serves the control API.

    service          the agent as a process: signals, one for its directories
    daemon, context, systemd          start, reload and stop; what all rooms share; readiness
    shared_parts     what all rooms share, made once
    accept_loop      a listening socket whose connections are accepted on the event loop
    disablement      whether an operator disabled this agent
    disk_thread      one thread for all that is written durably
    instance_lock    one agent for one set of directories
    log_budget       lines in the log that anybody may cause
    effective        configuration in force: the file's, less what only a restart changes
    page_store       the page store, as migrations use it
    http             control API and metrics
    intake           redirected connections, link port, hook
    plans            plans that are kept, and the helper process that carries them out
    migrations       outgoing and incoming migrations
    authorization    permission: cluster tickets, PBFT certificates, their settlement
    forecasting      samples, forecasts, predictions, shares of links
    pbft             this host as a member of the PBFT group
    tracking         registry, history, domains
    peers            the other agents

Imports go downwards in this list only; `make check` holds it.
"""
