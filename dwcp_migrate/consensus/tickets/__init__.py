"""Migration tickets: the application that the PBFT group replicates, and the verifier of its certificates.

Modules:
    machine: migration tickets as a replicated state machine
    operations: what hosts ask the group about tickets, and are answered
    verifier: verifier of a ticket's certificate
"""
