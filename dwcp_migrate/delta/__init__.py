"""HDE, hierarchical delta encoding: guest pages in the cheapest form that the destination can rebuild.

encoder   source: PageEncoder.classify (serial) -> PageJob.encode (parallel) -> payload
decoder   destination: PageDecoder.prepare (parallel) -> apply (serial) -> raw bytes
cache     the source's slots and who goes next      table     page -> slot
payload   the format                                skeleton  headers and literals from runs
codec     none, lz4, zstd; contexts of a thread     choice    which of them, from what was measured
"""

from dwcp_migrate.delta.choice import CodecChoice, Observation, pinned
from dwcp_migrate.delta.codec import LEVEL_MAX, NO_CODING, Codec, Coding, Compressor, Decompressor
from dwcp_migrate.delta.decoder import PageDecoder, PreparedSegment
from dwcp_migrate.delta.encoder import PageEncoder, raw_payload
from dwcp_migrate.delta.job import PageCounts, PageJob
from dwcp_migrate.delta.payload import RAW_BYTES_MAX, state_sequence

__all__ = [
    "LEVEL_MAX",
    "NO_CODING",
    "RAW_BYTES_MAX",
    "Codec",
    "CodecChoice",
    "Coding",
    "Compressor",
    "Decompressor",
    "Observation",
    "PageCounts",
    "PageDecoder",
    "PageEncoder",
    "PageJob",
    "PreparedSegment",
    "pinned",
    "raw_payload",
    "state_sequence",
]
