"""dwcp_migrate: an agent that makes libvirt live migration faster over real networks.

Modules:
    agent: the daemon on each host
    api: contract of the agent's control API
    bandwidth: PBA, predictive bandwidth allocation
    bulk: large objects to several hosts at once
    cli: command line
    clocks: two clocks of the agent
    config: agent's configuration
    consensus: ACP, certificates of a PBFT group across trust domains
    dataplane: data plane
    delta: HDE, hierarchical delta encoding
    durable: atomic, durable replacement of files
    errors: every error that this project raises on purpose, with what the operator can do about it
    framing: length-prefixed frames
    hypervisor: host as the agent needs it
    lab: two or more hypervisors and a WAN on one machine, for trying out, for tests and for benchmarks
    logs: log lines of the agent and its data processes
    net: TCP sockets and certificates, as far as all connections handle them alike
    orchestration: plans carried out
    pki: small CA for fleets that have none
    placement: placement of domains on hosts (ITP)
    placement_rule: rule about domains, as operators, cluster state and placement know it
    protocol: messages between two agents
    qemu: QEMU's migration stream, sans-IO
    refusals: catalogue of refusals, with text and remedy
    state: ASS, the fleet's replicated state
    store: pages that a host keeps of guests that migrated
    tasks: tasks with an owner, and the handling of unforeseen exceptions in them
    transport: AMST, multi-stream transport
    units: units and the few numbers that several packages share
"""

__version__ = "0.1.0"
