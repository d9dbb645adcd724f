"""Records of migrations: the registry of running ones, the history of ended ones, and the domains that they belong to."""
