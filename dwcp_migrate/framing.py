"""Length-prefixed frames, as on the control connections of agents and between the replicas of both fleet engines.

Rule: a length past the limit ends the connection before a byte is kept for it, so that a peer costs at most one frame.

    frame    u32 length (big-endian, at most `bytes_max`) | that many bytes
"""

import struct
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError

_LENGTH: Final = struct.Struct(">I")

T = TypeVar("T")


def frame_payload(payload: bytes, bytes_max: int) -> bytes:
    """Put the length before an encoded message.

    Args:
        payload: the message.
        bytes_max: largest payload that the other end takes.

    Raises:
        LocalProtocolError: the payload is larger: a fault of this side.
    """
    if len(payload) > bytes_max:
        raise LocalProtocolError(f"message of {len(payload)} bytes, at most {bytes_max}")
    return _LENGTH.pack(len(payload)) + payload


class FrameSplitter(Generic[T]):
    """Cuts the bytes of one connection into messages.

    Args:
        decode: reads one message; it must copy what it keeps, the memory is lent until it returns.
        bytes_max: largest payload.
    """

    def __init__(self, decode: Callable[[memoryview], T], bytes_max: int) -> None:
        self._decode = decode
        self._bytes_max = bytes_max
        self._begun = bytearray()

    def feed(self, data: bytes | memoryview) -> list[T]:
        """Take bytes as they arrive; returns the messages that are complete now.

        Raises:
            LimitExceededError: a frame announces more than `bytes_max`.
            RemoteProtocolError: whatever `decode` raises.
        """
        begun = self._begun
        if not begun:  # nearly always: no copy
            messages, at = self._split(data)
            begun += data[at:]
            return messages
        begun += data
        messages, at = self._split(begun)
        del begun[:at]
        return messages

    def _split(self, data: bytes | bytearray | memoryview) -> tuple[list[T], int]:
        """Decode the frames that are whole; returns them and the offset of what follows."""
        messages: list[T] = []
        at, end = 0, len(data)
        with memoryview(data) as view:
            while end - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, at)
                if length > self._bytes_max:
                    raise LimitExceededError(f"frame of {length} bytes, at most {self._bytes_max}")
                start = at + _LENGTH.size
                if end - start < length:
                    break
                at = start + length
                messages.append(self._decode(view[start:at]))
        return messages, at
