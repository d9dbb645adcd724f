"""HDE, hierarchical delta encoding: guest pages in the cheapest form that the destination can rebuild.

Modules:
    encoder, job: the source: `PageEncoder.classify` (serial), then `PageJob.encode` (parallel) to a payload
    decoder: the destination: `PageDecoder.prepare` (parallel), then `apply` (serial) to raw bytes
    cache, table: the source's page slots and their eviction; the slot of each page
    plan: the form of each page of a segment, checked
    payload, skeleton, in_place: the format: columns; headers and literals; segments that travel as they are
    codec, choice: lz4, zstd or none; the choice among them from measurements
"""

from dwcp_migrate.delta.choice import LINK_IDLE, QEMU_HELD, CodecChoice, Observation, pinned
from dwcp_migrate.delta.codec import LEVEL_MAX, NO_CODING, RAW, Codec, Coding, Compressor, Decompressor
from dwcp_migrate.delta.decoder import PageDecoder, PreparedSegment
from dwcp_migrate.delta.encoder import KnownPages, PageEncoder, raw_payload
from dwcp_migrate.delta.job import PageCounts, PageJob
from dwcp_migrate.delta.payload import DIGEST_BYTES, RAW_BYTES_MAX, state_sequence

__all__ = [
    "DIGEST_BYTES",
    "LEVEL_MAX",
    "LINK_IDLE",
    "NO_CODING",
    "QEMU_HELD",
    "RAW",
    "RAW_BYTES_MAX",
    "Codec",
    "CodecChoice",
    "Coding",
    "Compressor",
    "Decompressor",
    "KnownPages",
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
