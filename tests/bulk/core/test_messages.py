"""Requests and answers: written, read, bounded."""

import pytest

from dwcp_migrate.bulk.core.messages import (
    LACKS,
    OK,
    REQUEST_BYTES_MAX,
    BulkRequest,
    Describe,
    GetChunks,
    GetList,
    decode_answer_head,
    encode_answer_head,
    encode_request,
    request_frames,
)
from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.framing import frame_payload


def test_requests_are_read_as_written_whatever_the_cuts() -> None:
    requests: list[BulkRequest] = [Describe("n" * 64), GetList(bytes(32)), GetChunks(bytes(32), (1 << 15) - 1, 1 << 15)]
    data = b"".join(encode_request(request) for request in requests)
    frames = request_frames()
    assert [found for at in range(len(data)) for found in frames.feed(data[at : at + 1])] == requests


def test_request_past_its_limit_is_neither_sent_nor_taken() -> None:
    with pytest.raises(LocalProtocolError):
        encode_request(Describe("n" * REQUEST_BYTES_MAX))
    with pytest.raises(LimitExceededError):
        request_frames().feed(frame_payload(bytes(REQUEST_BYTES_MAX + 1), 1 << 20))


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x80"])
def test_bytes_that_are_no_request_are_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        request_frames().feed(frame_payload(payload, REQUEST_BYTES_MAX))


def test_answer_head_is_read_up_to_the_bytes_that_were_asked_for() -> None:
    assert decode_answer_head(encode_answer_head(OK, 10), 10) == (OK, 10)
    assert decode_answer_head(encode_answer_head(LACKS, 0), 10) == (LACKS, 0)
    with pytest.raises(LimitExceededError):
        decode_answer_head(encode_answer_head(OK, 11), 10)


@pytest.mark.parametrize(("code", "length"), [(3, 0), (LACKS, 1)])
def test_answer_with_an_unknown_code_or_a_refusal_with_bytes_is_refused(code: int, length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_answer_head(encode_answer_head(code, length), 10)
