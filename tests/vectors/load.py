"""The recorded connections of this folder. See README.md for where they come from."""

from pathlib import Path

import zstandard

FOLDER = Path(__file__).parent
CASES = sorted(path.name for path in FOLDER.glob("qemu-*"))
BYTES_MAX = 32 << 20


def connections(case: str) -> list[bytes]:
    """The forward bytes of a case's connections, main channel first."""
    names = ["main", *sorted(path.stem for path in (FOLDER / case).glob("multifd-*.zst"))]
    return [read(case, name) for name in names]


def read(case: str, name: str) -> bytes:
    """One connection's bytes."""
    packed = (FOLDER / case / f"{name}.zst").read_bytes()
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(packed, max_output_size=BYTES_MAX)
