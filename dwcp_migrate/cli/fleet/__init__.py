"""Commands about the fleet: cluster state, placement, drain, rebalance."""
