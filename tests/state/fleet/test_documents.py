"""Documents of the fleet: one writer at a revision."""

import pytest

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet import machine, model
from dwcp_migrate.state.fleet.commands import Command
from dwcp_migrate.state.fleet.model import FleetState, TicketOutcome


class Writer:
    """Applies commands of two hosts to one state."""

    def __init__(self) -> None:
        self.fleet = FleetState()
        self._count = 0

    def say(self, body: do.Body, by: str = "hv1") -> TicketOutcome:
        self._count += 1
        return machine.apply(self.fleet, Command(request=str(self._count), by=by, at=1000.0 + self._count, body=body))


def test_who_read_an_older_revision_changes_nothing() -> None:
    writer = Writer()
    first = writer.say(do.PutDocument(name="plan 1", body=b"a"))
    assert first.code == ""
    assert writer.say(do.PutDocument(name="plan 1", body=b"mine"), "hv2") == TicketOutcome("stale", first.token)
    second = writer.say(do.PutDocument(name="plan 1", revision=first.token, body=b"b"), "hv2")
    assert writer.say(do.PutDocument(name="plan 1", revision=first.token, body=b"late")).code == "stale"
    found = writer.fleet.documents["plan 1"]
    assert (found.body, found.by, found.revision) == (b"b", "hv2", second.token)
    assert second.token > first.token
    assert model.decode(model.encode(writer.fleet)) == writer.fleet


def test_a_document_is_dropped_at_its_revision_only() -> None:
    writer = Writer()
    first = writer.say(do.PutDocument(name="plan 1"))
    assert writer.say(do.DropDocument(name="plan 1", revision=first.token + 1)).code == "stale"
    assert writer.say(do.DropDocument(name="plan 1", revision=first.token)).code == ""
    assert writer.say(do.DropDocument(name="plan 1", revision=first.token)).code == ""
    assert writer.fleet.documents == {}
    assert writer.say(do.PutDocument(name="plan 1", revision=first.token)).code == "stale"


def test_as_many_documents_as_there_may_be_are_kept_and_no_more() -> None:
    writer = Writer()
    for number in range(model.DOCUMENTS_MAX):
        assert writer.say(do.PutDocument(name=f"plan {number}")).code == ""
    assert writer.say(do.PutDocument(name="one more")).code == "full"
    assert writer.say(do.PutDocument(name="plan 0", revision=writer.fleet.documents["plan 0"].revision)).code == ""


def test_a_document_past_its_limit_never_reaches_the_log() -> None:
    def written(size: int) -> bytes:
        body = do.PutDocument(name="plan 1", body=bytes(size))
        return do.encode(Command(request="1", by="hv1", at=1.0, body=body))

    do.decode(written(model.DOCUMENT_BYTES_MAX))
    with pytest.raises(RemoteProtocolError):
        do.decode(written(model.DOCUMENT_BYTES_MAX + 1))
