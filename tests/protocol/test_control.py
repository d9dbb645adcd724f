import struct

import msgspec
import pytest

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.protocol.control import (
    DOMAINS_MAX,
    FRAME_BYTES_MAX,
    SUCCESSOR_BYTES_MAX,
    Closed,
    DomainName,
    Envelope,
    Follow,
    Message,
    Open,
    Opened,
    Ping,
    Refused,
    Successor,
    Warm,
    Warmed,
    common_version,
    control_frames,
    decode_control,
    encode_control,
)

OPEN = Open(
    versions=(1, 2),
    session_id=b"s" * 16,
    token=b"t" * 32,
    address="10.0.0.2",
    port=49152,
    domains=(DomainName("u", "vm"),),
    cache_bytes=1,
    channels_max=64,
)
OPENED = Opened(version=1, cache_bytes=1, channels_max=64, candidates=(DomainName("u" * 36, "n" * 256),) * DOMAINS_MAX)


def read(data: bytes) -> Message | None:
    (envelope,) = control_frames().feed(data)
    return decode_control(envelope)


FOLLOW = Follow(cluster=b"c" * 16, epoch=3, offset=5)
SUCCESSOR = Successor(newest=4, size=SUCCESSOR_BYTES_MAX, data=b"d" * SUCCESSOR_BYTES_MAX, key=b"k" * 32)


WARM = Warm(
    versions=(1,),
    session_id=b"s" * 16,
    token=b"t" * 32,
    domain=DomainName("u", "vm"),
    scope="web",
    cache_bytes=1,
    window_bytes=1,
    channels_max=64,
)
WARMED = Warmed(version=1, cache_bytes=1, window_bytes=1, channels_max=64, store_key=b"k" * 32)


@pytest.mark.parametrize(
    "message",
    [OPEN, OPENED, Refused(code="port"), Ping(versions=(1,)), Closed(result=""), FOLLOW, SUCCESSOR, WARM, WARMED],
)
def test_messages_survive_the_wire_byte_by_byte(message: Message) -> None:
    frames = control_frames()
    found = [envelope for byte in encode_control(7, message) for envelope in frames.feed(bytes([byte]))]
    assert [(envelope.id, decode_control(envelope)) for envelope in found] == [(7, message)]


def test_several_frames_in_one_read_are_all_found() -> None:
    data = encode_control(1, OPEN) + encode_control(2, Ping(versions=(1,))) + b"\0\0"
    assert [envelope.id for envelope in control_frames().feed(data)] == [1, 2]


def frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def test_a_frame_at_the_limit_is_waited_for_and_one_byte_more_is_refused() -> None:
    assert control_frames().feed(struct.pack(">I", FRAME_BYTES_MAX)) == []
    with pytest.raises(LimitExceededError):
        control_frames().feed(struct.pack(">I", FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize("data", [b"", b"\xc0", b"garbage", msgspec.msgpack.encode([1, "open"])])
def test_a_frame_that_is_no_envelope_is_the_peers_fault(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        control_frames().feed(frame(data))


def test_an_unknown_kind_is_no_error() -> None:
    assert decode_control(Envelope(1, "ticket", msgspec.Raw(b"\x80"))) is None


def test_fields_of_a_newer_version_are_ignored() -> None:
    body = {**msgspec.to_builtins(Ping(versions=(1,)), builtin_types=(bytes,)), "new": 1}
    assert decode_control(Envelope(1, "ping", msgspec.Raw(msgspec.msgpack.encode(body)))) == Ping(versions=(1,))


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": b"short"},
        {"token": b""},
        {"port": 0},
        {"port": 65536},
        {"versions": ()},
        {"address": "a" * 257},
        {"channels_max": 513},
        {"cache_bytes": -1},
        {"domains": [["u", "n"]] * (DOMAINS_MAX + 1)},
    ],
)
def test_a_request_past_its_limits_is_the_peers_fault(change: dict[str, object]) -> None:
    body = {**msgspec.to_builtins(OPEN, builtin_types=(bytes,)), **change}
    with pytest.raises(RemoteProtocolError):
        decode_control(Envelope(1, "open", msgspec.Raw(msgspec.msgpack.encode(body))))


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (FOLLOW, {"cluster": b"c" * 15}),
        (FOLLOW, {"epoch": -1}),
        (FOLLOW, {"offset": 2**20 + 1}),
        (SUCCESSOR, {"newest": -2}),
        (SUCCESSOR, {"data": b"d" * (SUCCESSOR_BYTES_MAX + 1)}),
        (SUCCESSOR, {"key": b"k" * 33}),
    ],
)
def test_so_is_a_question_or_an_answer_about_members_past_theirs(message: Message, change: dict[str, object]) -> None:
    body = {**msgspec.to_builtins(message, builtin_types=(bytes,)), **change}
    with pytest.raises(RemoteProtocolError):
        decode_control(Envelope(1, type(message).__name__.lower(), msgspec.Raw(msgspec.msgpack.encode(body))))


def test_we_do_not_send_what_is_too_large() -> None:
    with pytest.raises(LocalProtocolError):
        encode_control(1, Refused(code="x", message="m" * FRAME_BYTES_MAX))


def test_the_highest_common_version_holds() -> None:
    assert (common_version((1, 2, 9)), common_version((2,)), common_version(())) == (1, 0, 0)


def test_an_answer_with_all_candidates_fits() -> None:
    assert read(encode_control(1, OPENED)) == OPENED
