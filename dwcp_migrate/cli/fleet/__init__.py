"""Commands about the fleet: cluster state, placement, drain, rebalance.

Modules:
    backup: `dwcp-migrate cluster export` and `import`
    cluster: `dwcp-migrate cluster`
    drain: `dwcp-migrate drain`
    explain: `dwcp-migrate explain`
    fleet_checks: judgements of `dwcp-migrate doctor` about the fleet's record and the PBFT group
    hosts: `dwcp-migrate hosts`
    locks: `dwcp-migrate locks`
    pbft: `dwcp-migrate cluster pbft`
    place: `dwcp-migrate place`
    planning: shared parts of `place`, `migrate`, `drain HOST`, `rebalance`, `explain` and `rules`
    rebalance: `dwcp-migrate rebalance`
    repairs: operators' repairs of the fleet's record
    rules: `dwcp-migrate rules`
    tickets: `dwcp-migrate tickets`
    undrain: `dwcp-migrate undrain`
"""
