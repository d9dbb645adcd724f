"""The wire: every message survives it, every limit holds at and past it, garbage is refused whole."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.consensus.pbft.model import messages as wire
from dwcp_migrate.consensus.pbft.model.membership import Membership
from dwcp_migrate.consensus.pbft.model.quorum import REPLICAS_MAX
from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from tests.consensus.members import member

NAME = bytes(range(32))
SIGNATURE = bytes(range(64))
PROOF = wire.StableProof(0, 8, NAME, {"r0": SIGNATURE})
EXAMPLES: list[wire.Message] = [
    wire.Hello(1, bytes(16), "client"),
    wire.Request(b"body", bytes(64), SIGNATURE),
    wire.PrePrepare(1, 2, 3, wire.NULL_BATCH),
    wire.Prepare(1, 2, 3, NAME),
    wire.Commit(1, 2, 3, NAME),
    wire.Reply(1, 2, 3, 4, b"result", SIGNATURE),
    wire.Checkpoint(1, 8, NAME, SIGNATURE),
    wire.StableCheckpoint(PROOF),
    wire.ViewChange(b"body", SIGNATURE),
    wire.NewView(1, 2, (wire.ViewChange(b"body", SIGNATURE),), SIGNATURE),
    wire.ReplicaStatus(1, 2, True, 3, 4),
    wire.Decided(3, wire.NULL_BATCH),
    wire.FetchBatch(NAME),
    wire.BatchContent(wire.NULL_BATCH),
    wire.FetchState(8, -1),
    wire.StateManifest(PROOF, (NAME, NAME)),
    wire.StatePart(8, 0, b"data"),
    wire.EpochLink(PROOF, (NAME,), b"header"),
]


def test_there_is_an_example_of_every_message() -> None:
    assert {type(example) for example in EXAMPLES} == set(wire.Message.__args__)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire_whole_byte_by_byte_and_with_more_behind_it(message: wire.Message) -> None:
    frame = wire.encode_frame(message)
    assert wire.pbft_frames().feed(frame) == [message]
    slowly = wire.pbft_frames()
    assert [got for at in range(len(frame)) for got in slowly.feed(frame[at : at + 1])] == [message]
    behind = wire.pbft_frames()
    assert behind.feed(frame + frame[:5]) == [message]
    assert behind.feed(frame[5:]) == [message]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_cut_short_is_refused(message: wire.Message) -> None:
    payload = wire.encode_frame(message)[4:]
    for end in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            wire.decode_message(payload[:end])


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_a_typed_error(data: bytes) -> None:
    try:
        wire.decode_message(data)
    except RemoteProtocolError:
        return
    pytest.fail("garbage was taken for a message")


def test_changed_bytes_are_refused_or_make_another_valid_message() -> None:
    rng = random.Random(1)
    for example in EXAMPLES:
        payload = bytearray(wire.encode_frame(example)[4:])
        for _ in range(50):
            changed = bytearray(payload)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            try:
                message = wire.decode_message(bytes(changed))
            except RemoteProtocolError:
                continue
            assert wire.decode_message(wire.encode_frame(message)[4:]) == message


def test_a_length_past_the_limit_is_refused_before_its_bytes_come() -> None:
    at_limit = wire.FRAME_BYTES_MAX.to_bytes(4, "big")
    assert wire.pbft_frames().feed(at_limit) == []
    with pytest.raises(LimitExceededError):
        wire.pbft_frames().feed((wire.FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


LIMITS = [
    (lambda n: wire.Request(bytes(n)), wire.REQUEST_BYTES_MAX),
    (lambda n: wire.Request(b"", bytes(n)), 16 * REPLICAS_MAX),
    (lambda n: wire.PrePrepare(0, 0, 0, bytes(n)), wire.BATCH_BYTES_MAX),
    (lambda n: wire.Decided(0, bytes(n)), wire.BATCH_BYTES_MAX),
    (lambda n: wire.Reply(0, 0, 0, 0, bytes(n)), wire.RESULT_BYTES_MAX),
    (lambda n: wire.ViewChange(bytes(n), SIGNATURE), wire.VIEW_CHANGE_BYTES_MAX),
    (lambda n: wire.StatePart(0, 0, bytes(n)), wire.STATE_PART_BYTES),
    (lambda n: wire.EpochLink(PROOF, (NAME,), bytes(n)), wire.STATE_PART_BYTES),
    (lambda n: wire.StateManifest(PROOF, (NAME,) * n), wire.STATE_PARTS_MAX),
    (lambda n: wire.FetchState(0, n - 1), wire.STATE_PARTS_MAX),
    (lambda n: wire.NewView(0, 0, (wire.ViewChange(b"", SIGNATURE),) * n, SIGNATURE), REPLICAS_MAX),
]


@pytest.mark.parametrize(("make", "limit"), LIMITS, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_a_field_holds_its_limit_and_no_more(make: object, limit: int) -> None:
    assert callable(make)
    assert wire.decode_message(wire.encode_frame(make(limit))[4:]) == make(limit)
    with pytest.raises(RemoteProtocolError):
        wire.decode_message(wire.encode_frame(make(limit + 1))[4:])


def test_digests_and_signatures_have_one_length() -> None:
    for wrong in (wire.Prepare(0, 0, 0, bytes(31)), wire.Commit(0, 0, 0, bytes(33)), wire.ViewChange(b"", bytes(63))):
        with pytest.raises(RemoteProtocolError):
            wire.decode_message(wire.encode_frame(wrong)[4:])


def test_counters_are_not_negative_and_fit_in_63_bits() -> None:
    assert wire.decode_message(wire.encode_frame(wire.FetchBatch(NAME))[4:])
    top = wire.Prepare(0, 0, 2**63 - 1, NAME)
    assert wire.decode_message(wire.encode_frame(top)[4:]) == top
    for wrong in (-1, 2**63):
        with pytest.raises(RemoteProtocolError):
            wire.decode_message(wire.encode_frame(wire.Prepare(0, 0, wrong, NAME))[4:])


def test_a_batch_holds_so_many_requests_and_no_more() -> None:
    full = wire.Batch(1, (wire.Request(b""),) * wire.BATCH_REQUESTS_MAX)
    assert wire.decode_batch(wire.encode_body(full)) == full
    past = wire.Batch(1, (wire.Request(b""),) * (wire.BATCH_REQUESTS_MAX + 1))
    assert wire.decode_batch(wire.encode_body(past)) is None


def test_an_operation_holds_so_many_bytes_and_no_more() -> None:
    full = wire.RequestBody("c", 0, 0, bytes(wire.OPERATION_BYTES_MAX))
    assert wire.decode_request_body(wire.encode_body(full)) == full
    assert len(wire.encode_body(full)) <= wire.REQUEST_BYTES_MAX
    past = wire.RequestBody("c", 0, 0, bytes(wire.OPERATION_BYTES_MAX + 1))
    assert wire.decode_request_body(wire.encode_body(past)) is None


def test_the_largest_view_change_and_the_largest_new_view_fit() -> None:
    names = [str(place).rjust(253, "x") for place in range(REPLICAS_MAX)]
    proof = wire.StableProof(2**62, 2**62, NAME, dict.fromkeys(names, SIGNATURE))
    prepared = tuple(wire.Prepared(2**62 + at, 2**62, NAME) for at in range(wire.WINDOW_MAX))
    digests = {bytes([at]) * 32: 2**62 for at in range(wire.DIGESTS_MAX)}
    seen = tuple(wire.ViewEvidence(2**62 + at, digests) for at in range(wire.WINDOW_MAX))
    body = wire.encode_body(wire.ViewChangeBody(2**62, 2**62, names[0], proof, prepared, seen))
    change = wire.ViewChange(body, SIGNATURE)
    frame = wire.encode_frame(wire.NewView(2**62, 2**62, (change,) * REPLICAS_MAX, SIGNATURE))
    assert wire.decode_message(frame[4:])


def test_a_message_past_the_frame_is_refused_at_its_sender() -> None:
    with pytest.raises(LocalProtocolError):
        wire.encode_frame(wire.PrePrepare(0, 0, 0, bytes(wire.FRAME_BYTES_MAX)))


def test_members_past_the_limits_are_refused() -> None:
    decoder = msgspec.msgpack.Decoder(Membership)
    replicas = tuple(member(f"r{at}") for at in range(REPLICAS_MAX + 1))
    good = Membership(bytes(16), 0, replicas[:-1], ())
    assert decoder.decode(wire.encode_body(good)) == good
    for wrong in (
        Membership(bytes(16), 0, replicas, ()),
        Membership(bytes(15), 0, replicas[:1], ()),
        Membership(bytes(16), 0, (), ()),
    ):
        with pytest.raises(msgspec.ValidationError):
            decoder.decode(wire.encode_body(wrong))
