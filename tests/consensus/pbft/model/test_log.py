"""The log: batches that break a rule are none, watermarks bound everything, what is named is kept."""

import pytest

from dwcp_migrate.consensus.pbft.model.keys import compute_digest
from dwcp_migrate.consensus.pbft.model.log import Log, Slot, count_votes, read
from dwcp_migrate.consensus.pbft.model.messages import (
    DIGESTS_MAX,
    NULL_BATCH,
    NULL_DIGEST,
    Batch,
    Prepared,
    Request,
    RequestBody,
    ViewEvidence,
    encode_body,
)


def batch(*bodies: RequestBody) -> bytes:
    return encode_body(Batch(7, tuple(Request(encode_body(body)) for body in bodies)))


ONE, TWO = RequestBody("c0", 0, 1, b"x"), RequestBody("c0", 0, 2, b"x")
CHANGE = RequestBody("op", 0, 3, b"x", reconfigure=True)


def test_a_batch_is_read_with_its_bodies() -> None:
    content = read(batch(ONE, TWO))
    assert content is not None
    assert content.time_ms == 7
    assert [body for _, body in content.requests] == [ONE, TWO]
    assert not content.reconfigures
    alone = read(batch(CHANGE))
    assert alone is not None
    assert alone.reconfigures


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", batch(ONE, ONE), batch(ONE, CHANGE), encode_body(Batch(1, (Request(b"\xc1"),)))]
)
def test_a_batch_that_breaks_a_rule_is_none(data: bytes) -> None:
    assert read(data) is None
    log = Log(8)
    assert log.keep(compute_digest(data), data) is None
    assert not log.batches


def test_the_watermarks_hold_at_and_past_their_value() -> None:
    log = Log(8)
    assert not log.is_inside(0)
    assert log.is_inside(1)
    assert log.is_inside(8)
    assert not log.is_inside(9)
    log.advance(4)
    assert not log.is_inside(4)
    assert log.is_inside(12)


def test_advancing_drops_slots_and_the_batches_that_nobody_names() -> None:
    log = Log(8)
    first, second = batch(ONE), batch(TWO)
    for sequence, data in ((1, first), (5, second)):
        content = log.keep(compute_digest(data), data)
        assert content is not None
        log.slot(sequence, 0.0).accept(0, compute_digest(data), content, 0.0)
    log.advance(4)
    assert list(log.slots) == [5]
    assert list(log.batches) == [compute_digest(second)]


def test_what_was_prepared_and_accepted_outlives_views_and_votes_do_not() -> None:
    log = Log(8)
    content = log.keep(NULL_DIGEST, NULL_BATCH)
    assert content is not None
    slot = log.slot(3, 0.0)
    slot.accept(2, NULL_DIGEST, content, 0.0)
    slot.prepared = (2, NULL_DIGEST)
    slot.prepares["r1"] = slot.commits["r1"] = NULL_DIGEST
    slot.enter_view(1.0)
    assert slot.digest is None
    assert not slot.prepares
    assert not slot.commits
    assert log.prepared() == (Prepared(3, 2, NULL_DIGEST),)
    assert log.seen() == (ViewEvidence(3, {NULL_DIGEST: 2}),)


def test_of_many_digests_the_latest_are_reported() -> None:
    slot = Slot(1, 0.0)
    for view in range(DIGESTS_MAX + 2):
        slot.see(view, bytes([view]) * 32)
    assert sorted(slot.seen.values()) == list(range(2, DIGESTS_MAX + 2))


def test_votes_are_counted_by_digest() -> None:
    assert count_votes({"a": b"x", "b": b"y", "c": b"x"}, b"x") == 2
    assert count_votes({}, b"x") == 0
