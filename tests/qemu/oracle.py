"""A naive parser of RAM pages: one record after the other, from the format's description, nothing clever.

It knows well-formed streams only, as the vectors are; the fast parser must find the same pages.
"""

from dataclasses import dataclass, field

PAGE = 4096


@dataclass
class Found:
    """Positions of whole pages in the stream, their offsets, and the offsets of zero pages."""

    pages: list[tuple[int, int]] = field(default_factory=list)
    zeros: list[int] = field(default_factory=list)
    compressed: int = 0


def number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def parse_main(data: bytes) -> Found:
    """Pages of a main channel, up to the device state at its end."""
    found, at, ram = Found(), 8, b""
    while at < len(data):
        kind = data[at]
        if kind == 7:
            at += 5 + number(data, at + 1, 4)
        elif kind == 8:
            command, size = number(data, at + 1, 2), number(data, at + 3, 2)
            at += 5 + size + (number(data, at + 5, 4) if command == 7 else 0)
        elif kind == 1 and data[at + 5 : at + 9] == b"\x03ram":
            ram = data[at + 1 : at + 5]
            at = parse_records(data, at + 17, found)
        elif kind in (2, 3) and data[at + 1 : at + 5] == ram:
            at = parse_records(data, at + 5, found)
        elif kind == 0x7E:
            at += 5
        else:
            break
    return found


def parse_records(data: bytes, at: int, found: Found) -> int:
    """RAM records up to the end of the section; returns the position behind it."""
    while True:
        header = number(data, at, 8)
        flags, offset = header & 0xFFF, header & ~0xFFF
        at += 8
        if flags & 0x10:
            return at
        if flags & 0x04:
            left = offset
            while left:
                size = data[at]
                left -= number(data, at + 1 + size, 8)
                at += 9 + size
            continue
        if flags == 0x200:
            continue
        if not flags & 0x20:
            at += 1 + data[at]
        if flags & 0x08:
            found.pages.append((at, offset))
            at += PAGE
        elif flags & 0x02:
            found.zeros.append(offset)
            at += 1
        elif flags & 0x40:
            at += 3 + number(data, at + 1, 2)
        else:
            raise AssertionError(f"flags {flags:#x} at {at}")


def parse_multifd(data: bytes) -> Found:
    """Pages of a multifd channel."""
    found, at = Found(), 64
    while at < len(data):
        flags, normal, size = number(data, at + 8, 4), number(data, at + 16, 4), number(data, at + 20, 4)
        zero = number(data, at + 32, 4)
        offsets = [number(data, at + 320 + 8 * index, 8) for index in range(128)]
        at += 1344
        found.zeros += offsets[normal : normal + zero]
        if flags & 0x3E:
            found.compressed += normal
            at += size if normal else 0
            continue
        for offset in offsets[:normal]:
            found.pages.append((at, offset))
            at += PAGE
    return found
