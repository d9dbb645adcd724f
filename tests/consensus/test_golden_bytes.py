"""Bytes that other members and old journals speak: they may be added to, never changed under the same version.

`golden/protocol_2.json` holds them as protocol version 2 wrote them first: each message on the wire, each record of a
journal, each operation on tickets.
"""

import json
from pathlib import Path

import pytest

from dwcp_migrate.consensus.pbft.model import messages as wire
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.tickets import operations
from tests.consensus.pbft.model.test_messages import EXAMPLES
from tests.consensus.pbft.model.test_records import ENTRIES

GOLDEN: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "golden" / "protocol_2.json").read_text())
DOMAIN = "00000000-0000-4000-8000-000000000001"
OPERATIONS: list[operations.Operation] = [
    operations.ProposeTicket(DOMAIN, "hv2", 60_000),
    operations.BeginTicket(DOMAIN, 7),
    operations.ResumeTicket(DOMAIN, 7),
    operations.FailTicket(DOMAIN, 7),
    operations.Forget(DOMAIN),
    operations.Assign(DOMAIN, "hv3"),
    operations.Register(DOMAIN),
    operations.Issue(DOMAIN, "hv2", 3, 2, 60_000),
    operations.Consume(DOMAIN, 7),
    operations.Cancel(DOMAIN, 7),
    operations.Release(DOMAIN),
]


def written() -> dict[str, dict[str, str]]:
    """What this software writes of the same things."""
    return {
        "messages": {type(one).__name__: wire.encode_frame(one).hex() for one in EXAMPLES},
        "records": {type(one).__name__: records.encode(one, 10, 5).hex() for one in ENTRIES},
        "operations": {type(one).__name__: operations.encode_operation(one).hex() for one in OPERATIONS},
    }


def test_there_are_golden_bytes_of_everything() -> None:
    assert {kind: set(found) for kind, found in GOLDEN.items()} == {
        "messages": {kind.__name__ for kind in wire.Message.__args__},
        "records": {kind.__name__ for kind in records.Entry.__args__},
        "operations": {kind.__name__ for kind in operations.Operation.__args__},
    }


@pytest.mark.parametrize("kind", GOLDEN)
def test_what_is_written_is_what_was_written_first(kind: str) -> None:
    assert written()[kind] == GOLDEN[kind]


def test_what_was_written_first_is_read() -> None:
    for message in EXAMPLES:
        frame = bytes.fromhex(GOLDEN["messages"][type(message).__name__])
        assert wire.pbft_frames().feed(frame) == [message]
    for operation in OPERATIONS:
        assert operations.decode_operation(bytes.fromhex(GOLDEN["operations"][type(operation).__name__])) == operation
