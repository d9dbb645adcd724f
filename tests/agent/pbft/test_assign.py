"""An operator says who owns a domain for the group; the answers are the real tickets'."""

import pytest

from dwcp_migrate.agent.pbft.group import PbftGroup
from dwcp_migrate.consensus import Context
from dwcp_migrate.consensus.pbft.client import Decision
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.tickets.machine import Tickets
from dwcp_migrate.consensus.tickets.operations import Ownership, Register, encode_operation
from dwcp_migrate.errors import ConfigError, CoordinationError
from tests.consensus.members import membership

DOMAIN = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> PbftGroup:
    """A group whose decisions are made here, on a domain of c0's."""
    tickets = Tickets()
    tickets.apply(encode_operation(Register(DOMAIN)), Context(client="c0", sequence=1, time_ms=1, is_operator=False))

    async def ask(operation: bytes) -> Decision:
        context = Context(client="op", sequence=2, time_ms=2, is_operator=True)
        return Decision(1, 2, tickets.apply(operation, context), None)

    made = PbftGroup.__new__(PbftGroup)
    monkeypatch.setattr(made, "_may_propose", lambda: Group(membership(4)), raising=False)
    monkeypatch.setattr(made, "_ask", ask, raising=False)
    return made


async def test_a_domain_is_given_to_a_host_and_taken_from_all(group: PbftGroup) -> None:
    assert await group.assign(DOMAIN, "c1") == Ownership(DOMAIN, "c1", 1)
    assert await group.assign(DOMAIN, "") == Ownership(DOMAIN, "", 2)
    with pytest.raises(CoordinationError, match="nobody has registered this domain"):
        await group.assign(DOMAIN, "c1")


async def test_a_host_without_a_part_owns_nothing(group: PbftGroup) -> None:
    with pytest.raises(ConfigError, match="hv9 has no part in the group"):
        await group.assign(DOMAIN, "hv9")


async def test_what_is_no_uuid_is_refused(group: PbftGroup) -> None:
    with pytest.raises(CoordinationError, match="the operation is none"):
        await group.assign("web1", "c1")
