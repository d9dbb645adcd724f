"""Documents: small texts that the fleet keeps for its agents, opaque here. Pure functions over the fleet.

The rule: a change names the revision that its author read; a document that was changed meanwhile stays as it is. So two
carriers of a plan cannot write over each other, and no wish is lost.
"""

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet.model import DOCUMENTS_MAX, Document, FleetState, TicketOutcome


def put(fleet: FleetState, by: str, body: do.PutDocument) -> TicketOutcome:
    """Make a document, or replace the revision that is named.

    Args:
        fleet: changed in place.
        by: the host that writes.
        body: name, revision (0 for a new document) and text.

    Returns:
        The new revision as the token, or `stale` with the present one, or `full`.
    """
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
    """Remove the revision that is named; an unknown name is fine.

    Args:
        fleet: changed in place.
        body: name and revision.

    Returns:
        Done, or `stale` with the present revision.
    """
    known = fleet.documents.get(body.name)
    if known is None:
        return TicketOutcome()
    if known.revision != body.revision:
        return TicketOutcome("stale", known.revision)
    del fleet.documents[body.name]
    return TicketOutcome()
