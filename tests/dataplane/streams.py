"""Made-up precopy streams in QEMU's format, for sessions to carry."""

import random
import struct
from collections.abc import Iterator

PAGE = 4096
PAGE_FLAG, ZERO_FLAG, CONTINUE_FLAG, EOS_FLAG, SIZE_FLAG = 0x08, 0x02, 0x20, 0x10, 0x04


def _page(draw: random.Random) -> bytes:
    """Some text, some structure, some noise: compressible by about two."""
    words = [b"guest", b"memory", b"page", b"%08x" % draw.getrandbits(32), draw.randbytes(16)]
    text = b" ".join(draw.choice(words) for _ in range(500))
    return text[:PAGE].ljust(PAGE, b"\0")


def precopy(seed: int, pages: int, passes: int = 2, dirty: float = 0.3) -> Iterator[bytes]:
    """A main channel: set-up, `passes` over memory (later ones re-send some pages, changed a little), device state."""
    draw = random.Random(seed)
    block = b"\x06pc.ram"
    total = pages * PAGE
    yield b"QEVM\0\0\0\x03" + b"\x07\0\0\0\x0apc-q35-7.2"
    yield b"\x01\0\0\0\x02\x03ram" + struct.pack(">IIQ", 0, 4, total | SIZE_FLAG) + block + struct.pack(">Q", total)
    yield struct.pack(">QBI", EOS_FLAG, 0x7E, 2)
    memory = [bytearray(_page(draw)) if draw.random() < 0.7 else None for _ in range(pages)]
    for number in range(passes):
        yield b"\x02\0\0\0\x02"
        chosen = range(pages) if number == 0 else sorted(draw.sample(range(pages), int(pages * dirty)))
        yield from _records(draw, memory, chosen, block, change=number > 0)
        yield struct.pack(">QBI", EOS_FLAG, 0x7E, 2)
    yield b"\x03\0\0\0\x02" + struct.pack(">QBI", EOS_FLAG, 0x7E, 2)
    yield draw.randbytes(100_000) + b"\0"


def _records(
    draw: random.Random, memory: list[bytearray | None], chosen: range | list[int], block: bytes, *, change: bool
) -> Iterator[bytes]:
    first = True
    for index in chosen:
        page = memory[index]
        flag = ZERO_FLAG if page is None else PAGE_FLAG
        header = struct.pack(">Q", index * PAGE | flag | (0 if first else CONTINUE_FLAG)) + (block if first else b"")
        first = False
        if page is None:
            yield header + b"\0"
            continue
        if change:
            at = draw.randrange(PAGE - 64)
            page[at : at + 64] = draw.randbytes(64)
        yield header + bytes(page)
