"""Records of migrations: the registry of running ones, the history of ended ones, and their domains."""
