"""The Raft engine: pysyncobj over the agents' own mutually authenticated connections."""
