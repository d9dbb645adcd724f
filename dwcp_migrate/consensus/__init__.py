"""ACP: agreement where hosts are in different hands, and the choice of when that is needed.

Core (sans-IO): `quorum`, `keys`, `membership`, `messages`, `clients`, `log`, `batching`, `requests`, `agreement`,
`execution`, `reconfiguration`, `stable`, `snapshot`, `epochs`, `view_change`, `views`, `catchup`, `journal`,
`recovery`, `replica`, `client`, `certificate`, `lineage`, `tickets`, `permits`, `policy`.
Shell: `journal_file`, `key_file`, `channel`, `node`, `group_client`, `event_loop`.
The protocol with its diagram, what is signed and what is left out: docs/consensus.md.
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
