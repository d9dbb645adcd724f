"""Recordings of migration streams, and their replay through parser, encoder and decoder.

Modules:
    recorder: recordings of raw streams for `dwcp-migrate replay`
    replay: recorded connections of QEMU's run through parser, encoder, frames and decoder in one process
"""
