"""Permission for a migration: tickets of the cluster state, certificates of the PBFT group, and their settlement."""
