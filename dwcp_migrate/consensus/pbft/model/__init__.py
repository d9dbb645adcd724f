"""Data of the PBFT protocol: keys, memberships, messages, journal records, checkpoints."""
