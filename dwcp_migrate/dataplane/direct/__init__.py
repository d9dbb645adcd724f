"""Bytes that go as QEMU sends them: past the channels, or without any.

Modules:
    path: a connection's own way past the link, where that is outrun
    splicing: bytes from one socket to another inside the kernel
    tls_endpoint: the other end of a path that keeps its TLS, with an end that can be told from a cut
"""
