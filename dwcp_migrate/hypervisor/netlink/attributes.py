"""Netlink attributes, encoded and cut by hand.

pyroute2 takes milliseconds for a rule and as long again to read it back; ten thousand elements of a set have to be
encoded, and read at each scrape of the metrics, while the event loop waits.
"""

import struct
from collections.abc import Iterator
from typing import Final

NESTED: Final = 0x8000

_ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute, padded to four bytes.

    Args:
        kind: its type, with `NESTED` where the value is attributes.
        value: at most 65,531 bytes.
    """
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + _PADDING[len(value) & 3]


def nested(kind: int, *values: bytes) -> bytes:
    """One attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(values))


def text(kind: int, value: str) -> bytes:
    """Encode one attribute that holds a string.

    Args:
        kind: its type.
        value: encoded as UTF-8, with a final zero byte.
    """
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """Encode one attribute that holds a number, in network byte order as netfilter has them.

    Args:
        kind: its type.
        value: of 32 bits, unsigned.
    """
    return attribute(kind, value.to_bytes(4))


def attributes(data: bytes) -> dict[int, bytes]:
    """Cut netlink attributes: type to value, the last of a type counts."""
    return dict(pairs(data))


def pairs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut netlink attributes: types and values in order; what is cut off at the end is left out."""
    for kind, start, end in spans(data, 0, len(data)):
        yield kind, data[start:end]


def spans(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Find the netlink attributes in a part of a message.

    Args:
        data: the message.
        start: offset of the first attribute.
        end: offset behind the last one; an attribute that is longer is cut off there.

    Yields:
        Type, and the offsets where its value begins and ends.
    """
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, start + _ATTRIBUTE.size, min(start + length, end)
        start += (length + 3) & ~3


def find(data: bytes, span: tuple[int, int], *path: int) -> tuple[int, int] | None:
    """Find a value inside nested attributes.

    Args:
        data: the message.
        span: offsets where the outermost attributes begin and end.
        *path: types to descend by, the outermost first.

    Returns:
        Offsets where the value begins and ends; None if there is no such attribute.
    """
    for wanted in path:
        found = next(((start, end) for kind, start, end in spans(data, *span) if kind == wanted), None)
        if found is None:
            return None
        span = found
    return span
