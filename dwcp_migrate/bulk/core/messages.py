"""Requests and answers of a bulk connection: one side asks, the other answers in order.

The bytes of a connection, after TLS:

    request   frame (u32 length, msgpack): Describe | GetList | GetChunks
    answer    code u8 | length u32 (big-endian) | that many bytes: a manifest, a list, or chunks one behind the other
"""

import struct
from typing import Final

import msgspec

from dwcp_migrate.bulk.core.chunking import CHUNK_BYTES_MAX
from dwcp_migrate.bulk.core.manifest import LIST_BYTES_MAX
from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.framing import FrameSplitter, frame_payload

REQUEST_BYTES_MAX: Final = 256
"""Largest request: a digest, a name and two numbers."""
ANSWER_BYTES_MAX: Final = max(CHUNK_BYTES_MAX, LIST_BYTES_MAX)
RUN_BYTES_MAX: Final = CHUNK_BYTES_MAX
"""Most bytes of chunks that one request asks for."""

OK: Final = 0
UNKNOWN: Final = 1
"""The object is not known here."""
LACKS: Final = 2
"""The object is known, and not all of these chunks are here yet."""

_HEAD: Final = struct.Struct(">BI")
ANSWER_HEAD_BYTES: Final = _HEAD.size


class Describe(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Asks for the manifest of the newest version of an object, by name."""

    name: str


class GetList(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Asks for the list of chunks of a version."""

    version: bytes


class GetChunks(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Asks for a run of chunks; the peer waits a moment for those that it is about to have.

    Attributes:
        version: digest of the list of chunks.
        first: number of the first chunk.
        count: of chunks, at most `RUN_BYTES_MAX` together.
    """

    version: bytes
    first: int
    count: int


BulkRequest = Describe | GetList | GetChunks

_decoder: Final[msgspec.msgpack.Decoder[BulkRequest]] = msgspec.msgpack.Decoder(BulkRequest)


def encode_request(request: BulkRequest) -> bytes:
    """Frame a request."""
    return frame_payload(msgspec.msgpack.encode(request), REQUEST_BYTES_MAX)


def request_frames() -> FrameSplitter[BulkRequest]:
    """Make the splitter of a connection's bytes into requests; it raises RemoteProtocolError for anything else."""
    return FrameSplitter(_decode, REQUEST_BYTES_MAX)


def _decode(data: memoryview) -> BulkRequest:
    try:
        return _decoder.decode(bytes(data))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"bulk request: {error}") from error


def encode_answer_head(code: int, length: int) -> bytes:
    """Write the head of an answer.

    Args:
        code: OK, UNKNOWN or LACKS.
        length: bytes that follow.
    """
    return _HEAD.pack(code, length)


def decode_answer_head(data: bytes | bytearray, bytes_max: int) -> tuple[int, int]:
    """Read the head of an answer: its code, and the bytes that follow.

    Args:
        data: `ANSWER_HEAD_BYTES` of it.
        bytes_max: most that were asked for.

    Raises:
        LimitExceededError: more bytes follow than were asked for.
        RemoteProtocolError: no such code, or a refusal with bytes.
    """
    code, length = _HEAD.unpack(data)
    if length > bytes_max:
        raise LimitExceededError(f"answer of {length} bytes, at most {bytes_max}")
    if code not in {OK, UNKNOWN, LACKS} or (code != OK and length):
        raise RemoteProtocolError(f"answer {code} with {length} bytes")
    return code, length
