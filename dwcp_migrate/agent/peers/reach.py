"""The address at which a peer's agent answers: of several, the first that does.

libvirt and QEMU try every address of a name until one connects, and so does this. The dialled address comes first and
keeps a head start; an address that was silent lately is left out, the others still count.
"""

from asyncio import staggered
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NoReturn

from dwcp_migrate.agent.peers.client import ControlClient, code_of
from dwcp_migrate.agent.peers.directory import SilentPeers, numeric
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError, PeerUnreachableError
from dwcp_migrate.protocol.control import VERSIONS, Ping, Pong

HEAD_START_S: Final = 1.0
"""Of one address before the next is tried beside it: two round trips of any usual link."""


def candidate_addresses(peer: PeerConfig | None, dialled: str = "") -> list[str]:
    """List the addresses at which a peer's agent may answer, in the order to try them.

    Args:
        peer: whose IP addresses count, or its names where it has none; None for a host that is no peer.
        dialled: address that the migration goes to, the first to try; empty for none.
    """
    others = (numeric(peer.addresses) or peer.addresses) if peer is not None else []
    return [*([dialled] if dialled else []), *(address for address in others if address != dialled)]


async def find_address(
    control: ControlClient, peer: PeerConfig, addresses: Sequence[str], silent: SilentPeers | None = None
) -> str:
    """Return the first of these addresses at which the peer's agent answers; a connection to it is kept for requests.

    Args:
        control: connects.
        peer: who has to answer, by its certificate.
        addresses: in the order of preference.
        silent: addresses that are not tried now; one that lets time pass without an answer joins them.

    Raises:
        DwcpError: none answered, as `ControlClient.ask` says it.
    """
    if not addresses:
        raise PeerUnreachableError(f"{peer.name} has no address here", hint="name it in [[peers]]")
    known = {address: silent.get(peer.name, address, steady_clock()) for address in addresses} if silent else {}
    tried = [address for address in addresses if known.get(address) is None]
    if not tried:
        first = next(silence for silence in known.values() if silence is not None)
        raise PeerUnreachableError(f"{first.message} (not long ago; it is probed again soon)")

    async def attempt(address: str) -> str:
        try:
            await control.ask(peer, address, Ping(versions=VERSIONS), Pong, control.connect_timeout_s)
        except DwcpError as error:
            if silent is not None and isinstance(error.__cause__, TimeoutError):
                silent.add(peer.name, address, code_of(error), str(error), steady_clock())
            raise
        return address

    attempts: list[Callable[[], Awaitable[str]]] = [partial(attempt, address) for address in tried]
    found: str | None
    found, _, errors = await staggered.staggered_race(attempts, HEAD_START_S)
    return found if found is not None else _raise_telling(errors)


def _raise_telling(errors: Sequence[BaseException | None]) -> NoReturn:
    """Raise the error of the first address, but for a refused connection if another one says more."""
    failed = [error for error in errors if error is not None]
    telling = [error for error in failed if not isinstance(error.__cause__, ConnectionRefusedError)]
    raise (telling or failed)[0]
