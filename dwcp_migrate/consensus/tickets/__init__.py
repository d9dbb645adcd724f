"""Migration tickets: the application that the PBFT group replicates, and the verifier of its certificates.

Modules:
    machine: migration tickets as a replicated state machine
    operations: requests about tickets, and the group's answers
    verifier: verifier of a ticket's certificate
"""
