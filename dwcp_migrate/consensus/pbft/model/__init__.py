"""What PBFT replicas exchange and keep: keys, memberships, messages, records, checkpoints."""
