"""Commands about this host: agent, status, checks, configuration, certificates.

Modules:
    agent: `dwcp-migrate agent`
    cert: `dwcp-migrate cert`
    check: one judgement, and how it is made
    checks: judgements of `dwcp-migrate doctor`
    config: `dwcp-migrate config`
    cordon: `dwcp-migrate cordon`
    deep: what a configuration leads to, tried from this host
    doctor: `dwcp-migrate doctor`
    host_files: facts that `doctor` reads without the agent
    keepalive_check: judgement about libvirt's keepalive
    memory_check: judgements about memory for migrations and the page store
    record: `dwcp-migrate record`
    reload: `dwcp-migrate reload`
    status: `dwcp-migrate status`
    store: `dwcp-migrate store`
    uncordon: `dwcp-migrate uncordon`
    sysdump: `dwcp-migrate sysdump`
"""
