"""Make the corpus anew from the vectors: `python -m tests.fuzz.seed`, from the checkout's root."""

import struct
from pathlib import Path

from dwcp_migrate.delta import Codec, Coding, Compressor, PageEncoder
from dwcp_migrate.qemu import RamBlocks, StreamParser
from tests.delta.streams import noise, stream, touched
from tests.vectors.load import CASES, connections

CORPUS = Path(__file__).parent / "corpus"
HEAD_BYTES = 12_000


def main() -> None:
    """Write heads of all connections, and payloads of each codec."""
    for folder in ("parser", "decoder"):
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
    for case in CASES:
        for number, data in enumerate(connections(case)[:2]):
            (CORPUS / "parser" / f"{case}-{number}").write_bytes(b"\x80" + data[:HEAD_BYTES])
    encoder = PageEncoder(4 * 4096)
    for turn, codec in enumerate((Codec.NONE, Codec.LZ4, Codec.ZSTD)):
        data = stream((0, touched(noise(0), turn)), (1, noise(0)), (3, b"\0"), (4, bytes(4096)), (5, b"x" * 4096))
        cut = StreamParser(RamBlocks()).feed(data, flush=True).cuts[0]
        payload = encoder.classify(memoryview(data), cut).encode(Coding(codec), Compressor())
        (CORPUS / "decoder" / f"pages-{codec.name.lower()}").write_bytes(struct.pack("<I", len(data)) + payload)
    data = stream((6, noise(6)), (7, noise(0)), (8, noise(8)), (9, noise(9)))
    job = encoder.classify(memoryview(data), StreamParser(RamBlocks()).feed(data, flush=True).cuts[0])
    payload = job.encode(Coding(Codec.NONE), Compressor())
    (CORPUS / "decoder" / "in-place").write_bytes(struct.pack("<I", len(data)) + payload)
    opaque = encoder.classify(memoryview(b"opaque " * 99), StreamParser(RamBlocks()).feed(b"opaque " * 99).cuts[0])
    payload = opaque.encode(Coding(Codec.ZSTD), Compressor())
    (CORPUS / "decoder" / "opaque").write_bytes(struct.pack("<I", 7 * 99) + payload)


if __name__ == "__main__":
    main()
