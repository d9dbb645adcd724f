"""States in parts: what is signed covers every byte, and sizes have an end."""

import pytest

from dwcp_migrate.consensus.pbft.model import snapshot
from dwcp_migrate.consensus.pbft.model.client_table import ClientTable, RequestOutcome
from dwcp_migrate.consensus.pbft.model.messages import STATE_PART_BYTES
from tests.consensus.members import membership

HEADER = snapshot.Header(8, 1000, membership(4), 0)


def test_a_state_survives() -> None:
    table = ClientTable()
    table.record("c0", 7, RequestOutcome(3, b"result"))
    taken = snapshot.take_snapshot(HEADER, table, b"state")
    again = snapshot.decode_snapshot(taken.encode())
    assert again.digest == taken.digest
    assert snapshot.read_header(again.header) == HEADER
    assert snapshot.read_body(again.body) == snapshot.Body(table.dump(), b"state")


@pytest.mark.parametrize("size", [0, 1, STATE_PART_BYTES - 1, STATE_PART_BYTES, STATE_PART_BYTES + 1])
def test_parts_join_to_the_whole(size: int) -> None:
    taken = snapshot.GroupSnapshot(b"header", bytes(range(256)) * (size // 256) + bytes(size % 256))
    assert b"".join(taken.part(index) for index in range(1, len(taken.parts))) == taken.body
    assert taken.part(0) == taken.header
    assert taken.part(len(taken.parts)) == b""


def test_every_byte_changes_the_digest() -> None:
    first = snapshot.GroupSnapshot(b"header", bytes(2 * STATE_PART_BYTES))
    assert snapshot.GroupSnapshot(b"Header", first.body).digest != first.digest
    for at in (0, STATE_PART_BYTES, 2 * STATE_PART_BYTES - 1):
        data = bytearray(first.body)
        data[at] = 1
        assert snapshot.GroupSnapshot(b"header", bytes(data)).digest != first.digest


def test_a_state_past_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "STATE_BYTES_MAX", STATE_PART_BYTES + 100)
    assert snapshot.GroupSnapshot(bytes(50), bytes(50)).parts
    with pytest.raises(ValueError, match="at most"):
        snapshot.GroupSnapshot(bytes(50), bytes(51))


def test_a_header_past_one_part_is_refused() -> None:
    assert snapshot.GroupSnapshot(bytes(STATE_PART_BYTES), b"").parts
    with pytest.raises(ValueError, match="at most"):
        snapshot.GroupSnapshot(bytes(STATE_PART_BYTES + 1), b"")
