"""The address at which a peer's agent answers."""

import ssl

import pytest

from dwcp_migrate.agent.peers.client import ControlClient
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import PeerUnreachableError


async def test_a_peer_that_the_configuration_no_longer_names_is_unreachable_and_that_is_said() -> None:
    gone = PeerConfig(name="hv2", addresses=[])  # of a migration that the agent before this one began
    client = ControlClient(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), 1.0, 0)
    with pytest.raises(PeerUnreachableError, match="hv2 has no address"):
        await find_address(client, gone, candidate_addresses(gone))
