"""A record that agents keep together: a document of the fleet's state where there is one, else a file of this host.

The rule: it is written at the revision that its writer read, or not at all.
"""

from pathlib import Path

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient, check_outcome
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import PlacementError, StalePlanError
from dwcp_migrate.state.fleet.commands import PutDocument
from dwcp_migrate.state.fleet.model import FleetState


def stale_record(what: str) -> StalePlanError:
    """The error of a writer that read an earlier revision; `what` names the record."""
    return StalePlanError(f"{what} was changed by somebody else meanwhile")


async def put_document(coordination: ClusterStateClient, document: PutDocument, what: str) -> int:
    """Write the record into the fleet's state.

    Args:
        coordination: the fleet's state.
        document: the record, at the revision that was read.
        what: names it.

    Returns:
        Its new revision.

    Raises:
        StalePlanError: somebody else changed it meanwhile.
        CoordinationError: the fleet cannot be asked, or says no.
    """
    outcome = await coordination.submit(document)
    if outcome.code == "stale":
        raise stale_record(what)
    check_outcome(outcome)
    return outcome.token


def write_own(path: Path, data: bytes) -> None:
    """Write this host's file.

    Args:
        path: of it.
        data: all of it.

    Raises:
        PlacementError: it cannot be written.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise PlacementError(f"cannot write {path}: {error.strerror}") from error


def lease_holder(fleet: FleetState, name: str) -> str:
    """The host that holds a lease now; empty where it is free.

    Args:
        fleet: its state.
        name: of the lease.
    """
    lease = fleet.leases.get(name)
    return lease.holder if lease is not None and lease.expires_at > fleet.now else ""
