"""What is fuzzed: functions of bytes that must never fail in another way than they say."""

import struct

import numpy as np

from dwcp_migrate.delta import Codec, Coding, Compressor, Decompressor, PageDecoder, PageEncoder
from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.qemu.layout import RUN_UNIT_BYTES

SLOTS = 4
PAGE = 4096


def parser(data: bytes) -> None:
    """A stream in two pieces, cut where its first byte says: all bytes come back, layouts add up, pages are rebuilt."""
    stream = data[1:]
    middle = len(stream) * (data[0] if data else 0) // 255
    machine, encoder, decoder = StreamParser(RamBlocks()), PageEncoder(SLOTS * PAGE), PageDecoder(SLOTS * PAGE)
    begin = 0
    for end in (middle, len(stream)):
        view = memoryview(stream)[begin:end]
        fed = machine.feed(view, flush=True)
        assert fed.consumed == len(view)
        for cut in fed.cuts:
            if cut.layout is not None:
                assert int((cut.layout.count * RUN_UNIT_BYTES[cut.layout.kind]).sum()) == cut.end - cut.begin
            job = encoder.classify(view, cut)
            payload = job.encode(Coding(Codec.NONE), Compressor())
            rebuilt = decoder.apply(decoder.prepare(payload, job.raw_bytes, Decompressor()))
            assert rebuilt == view[cut.begin : cut.end]
        begin = end


def decoder(data: bytes) -> None:
    """A payload behind its raw size in four bytes: bytes of that size, or the peer's fault by name."""
    if len(data) < 4:
        return
    raw_bytes = struct.unpack_from("<I", data)[0] & 0xFFFFF
    machine = PageDecoder(SLOTS * PAGE)
    machine.prefault()
    machine._filled[: SLOTS // 2] = True
    try:
        prepared = machine.prepare(data[4:], raw_bytes, Decompressor())
        if prepared.state_sequence is not None:
            machine._next = prepared.state_sequence
        rebuilt = machine.apply(prepared)
    except RemoteProtocolError:
        return
    assert len(np.frombuffer(rebuilt, np.uint8)) == raw_bytes


TARGETS = {"parser": parser, "decoder": decoder}
