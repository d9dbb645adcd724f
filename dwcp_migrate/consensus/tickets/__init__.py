"""Migration tickets: the application that the PBFT group replicates, and the verifier of its certificates.

Modules:
    operations   what hosts ask the group about tickets, and are answered
    machine: migration tickets as a replicated state machine
    verifier: verifier of a ticket's certificate
"""
