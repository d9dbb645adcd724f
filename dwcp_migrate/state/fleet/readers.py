"""Hosts whose software does not read a command. It is not proposed while there is one: such hosts would stop.

Every host publishes the newest version that it reads (`PutHost`). A host of release 0.1.0 publishes nothing and reads
the first version.
"""

from collections.abc import Iterable

from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.state.fleet.commands import Body, ForgetHost, SetVersion
from dwcp_migrate.state.fleet.model import FIRST_VERSION, FleetState

NAMES_SHOWN_MAX = 5


def version_of(body: Body) -> int:
    """Return the lowest version that reads a command and the state that follows from it."""
    return max(body.since, body.version if isinstance(body, SetVersion) else FIRST_VERSION)


def check_readers(fleet: FleetState, body: Body, members: Iterable[str] = ()) -> None:
    """Demand that every host of the fleet reads a command.

    Args:
        fleet: the state.
        body: of the command.
        members: hosts that keep the state; one that the fleet does not know yet counts as one of release 0.1.0.

    Raises:
        CoordinationError: some host does not; it names them.
    """
    version = version_of(body)
    reads = dict.fromkeys(members, FIRST_VERSION) | {name: host.reads for name, host in fleet.hosts.items()}
    if isinstance(body, ForgetHost):
        reads.pop(body.name, None)
    behind = sorted(name for name, newest in reads.items() if newest < version)
    if behind:
        more = f" and {len(behind) - NAMES_SHOWN_MAX} more" if len(behind) > NAMES_SHOWN_MAX else ""
        raise CoordinationError(
            f"{', '.join(behind[:NAMES_SHOWN_MAX])}{more}: the software there does not read what this needs",
            hint="upgrade them first, or `dwcp-migrate cluster forget-host` those that are gone for good",
        )
