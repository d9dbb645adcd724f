"""ACP: agreement between hosts in different hands, by PBFT.

The protocol with its diagram, what is signed and what is left out: docs/consensus.md.

Modules:
    io: sockets, files and loops around the PBFT core
    pbft: the PBFT protocol, without I/O
    tickets: migration tickets, the application that the group replicates
"""

from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate
from dwcp_migrate.consensus.pbft.client import Decision, PbftClient
from dwcp_migrate.consensus.pbft.core import Application, Context, Execution, Options, ReplicaOutput
from dwcp_migrate.consensus.pbft.model.keys import SigningIdentity
from dwcp_migrate.consensus.pbft.model.membership import Member, Membership
from dwcp_migrate.consensus.pbft.replica import PbftReplica

__all__ = [
    "Application",
    "Context",
    "Decision",
    "DecisionCertificate",
    "Execution",
    "Member",
    "Membership",
    "Options",
    "PbftClient",
    "PbftReplica",
    "ReplicaOutput",
    "SigningIdentity",
]
