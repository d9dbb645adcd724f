"""Documents: small texts that the fleet keeps for its agents, opaque here. Pure functions over the fleet.

The rule: who changes one names the revision that he read; one that somebody else changed meanwhile stays as it is. So
two carriers of a plan cannot write over each other, and a wish is never lost.
"""

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet.model import DOCUMENTS_MAX, Document, FleetState, TicketOutcome


def put(fleet: FleetState, by: str, body: do.PutDocument) -> TicketOutcome:
    """Make one, or replace the revision that is named; the outcome's token is the new revision."""
    known = fleet.documents.get(body.name)
    if (known.revision if known is not None else 0) != body.revision:
        return TicketOutcome("stale", known.revision if known is not None else 0)
    if known is None and len(fleet.documents) >= DOCUMENTS_MAX:
        return TicketOutcome("full")
    fleet.documents[body.name] = Document(
        name=body.name, revision=fleet.index, by=by, changed_at=fleet.now, body=body.body
    )
    return TicketOutcome(token=fleet.index)


def drop(fleet: FleetState, body: do.DropDocument) -> TicketOutcome:
    """Take out the revision that is named; there being none is fine."""
    known = fleet.documents.get(body.name)
    if known is None:
        return TicketOutcome()
    if known.revision != body.revision:
        return TicketOutcome("stale", known.revision)
    del fleet.documents[body.name]
    return TicketOutcome()
