"""How commands lie in the log, and what is refused before it gets there."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet.model import CERTIFICATE_BYTES_MAX, LABELS_MAX, VERSION


def command(body: do.Body) -> do.Command:
    return do.Command(request="r", by="a", at=1.0, body=body)


def test_a_command_survives_the_log() -> None:
    made = command(do.Propose(uuid="u", source="a", destination="b", lifetime_s=5, certificate=b"\0\xff"))
    assert do.decode(do.encode(made)) == made
    assert do.read_author(do.encode(made)) == "a"


def test_the_largest_command_passes_and_one_byte_more_does_not() -> None:
    overhead = len(do.encode(command(do.Barrier(padding=bytes(70000))))) - 70000
    largest = command(do.Barrier(padding=bytes(do.COMMAND_BYTES_MAX - overhead)))
    assert len(do.encode(largest)) == do.COMMAND_BYTES_MAX
    with pytest.raises(LimitExceededError):
        do.encode(command(do.Barrier(padding=bytes(do.COMMAND_BYTES_MAX - overhead + 1))))


@pytest.mark.parametrize(
    "body",
    [
        do.PutHost(name=""),
        do.PutHost(name="x" * 254),
        do.PutHost(name="a", labels={str(number): "" for number in range(LABELS_MAX + 1)}),
        do.Propose(uuid="u", source="a", destination="b", lifetime_s=0),
        do.Propose(uuid="u" * 37, source="a", destination="b", lifetime_s=1),
        do.Propose(uuid="u", source="a", destination="b", lifetime_s=1, certificate=bytes(CERTIFICATE_BYTES_MAX + 1)),
        do.Acquire(name="l", lifetime_s=24 * 3600 + 1),
        do.Fail(token=-1),
    ],
)
def test_what_breaks_a_limit_is_refused_where_it_is_read(body: do.Body) -> None:
    with pytest.raises(RemoteProtocolError):
        do.decode(do.encode(command(body)))


def test_what_is_at_a_limit_is_read() -> None:
    labels = {str(number): "x" * 256 for number in range(LABELS_MAX)}
    made = command(do.PutHost(name="x" * 253, labels=labels))
    assert do.decode(do.encode(made)) == made


def test_a_newer_version_is_told_apart_from_garbage() -> None:
    data = msgspec.msgpack.encode([VERSION + 1, "r", "a", 0.0, {"do": "teleport"}])
    with pytest.raises(do.UnknownVersionError):
        do.decode(data)
    with pytest.raises(RemoteProtocolError) as refused:
        do.decode(msgspec.msgpack.encode([VERSION, "r", "a", 0.0, {"do": "teleport"}]))
    assert not isinstance(refused.value, do.UnknownVersionError)


def test_a_batch_holds_as_many_commands_as_it_may() -> None:
    most = [b"x"] * do.BATCH_COMMANDS_MAX
    assert do.decode_batch(do.encode_batch(most)) == most
    with pytest.raises(RemoteProtocolError):
        do.decode_batch(do.encode_batch([*most, b"x"]))
    with pytest.raises(LimitExceededError):
        do.decode_batch(bytes(do.BATCH_BYTES_MAX + 1))


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_a_typed_error(data: bytes) -> None:
    for read in (do.decode, do.decode_batch, do.read_author):
        try:
            read(data)
        except RemoteProtocolError:
            continue
