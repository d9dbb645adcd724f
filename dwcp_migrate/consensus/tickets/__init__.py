"""Migration tickets: the application that the PBFT group replicates, and the verifier of its certificates."""
