"""The payload format as docs/hde.md shows it, byte by byte."""

import re
from pathlib import Path

import numpy as np
import pytest

from dwcp_migrate.delta import NO_CODING, Compressor, Decompressor, PageDecoder, PageEncoder
from dwcp_migrate.delta.payload import pack_column, unpack_column
from dwcp_migrate.qemu import RamBlocks, StreamParser
from tests.delta.streams import stream

PAGE = bytes(range(256)) * 16
FIRST = stream((1, PAGE))
SECOND = stream((16, b"\0"), (17, b"\0"), (18, b"\0"), (1, PAGE), (2, PAGE))


def documented() -> bytes:
    """The hex dump of docs/hde.md."""
    text = (Path(__file__).parents[2] / "docs" / "hde.md").read_text()
    (dump,) = re.findall(r"```hex\n(.*?)```", text, re.DOTALL)
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in dump.splitlines()))


def encoded() -> list[bytes]:
    encoder, blocks = PageEncoder(1 << 20), RamBlocks()
    return [
        encoder.classify(memoryview(data), StreamParser(blocks).feed(data, flush=True).cuts[0]).encode(
            NO_CODING, Compressor()
        )
        for data in (FIRST, SECOND)
    ]


def test_the_encoder_makes_the_documented_bytes() -> None:
    assert encoded()[1].hex(" ") == documented().hex(" ")


def test_the_decoder_rebuilds_the_stream_from_the_documented_bytes() -> None:
    decoder = PageDecoder(1 << 20)
    decoder.apply(decoder.prepare(encoded()[0], len(FIRST), Decompressor()))
    assert decoder.apply(decoder.prepare(documented(), len(SECOND), Decompressor())) == SECOND


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
def test_columns_survive_whatever_they_hold(kind: type[np.uint32]) -> None:
    values = np.array([0, 1, np.iinfo(kind).max, 7, 7, 0], kind)
    assert (unpack_column(np.frombuffer(pack_column(values), np.uint8), kind) == values).all()
    assert pack_column(np.array([], kind)) == b""


def test_a_regular_column_is_nearly_all_zeros() -> None:
    packed = pack_column(np.arange(1000, 1512, dtype=np.uint32))
    assert len(set(packed[512:])) <= 2
