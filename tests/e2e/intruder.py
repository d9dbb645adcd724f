"""Somebody on the network who is no agent: run inside a host's network namespace, see `test_bad_input`.

    python intruder.py TARGET LINK_PORT CA CERTIFICATE KEY SERVER_NAME SECONDS

Everything that it does is wrong in another way. It prints how many connections it made, and never what it received.
"""

import contextlib
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable

PREAMBLE_BYTES = 24
CONTROL = bytes(16)
TIMEOUT_S = 3.0


def preamble(session_id: bytes = CONTROL, version: int = 1) -> bytes:
    return struct.pack("!4sHH16s", b"DWCP", version, 0, session_id)


def connect(target: str, port: int, first: bytes) -> socket.socket:
    sock = socket.create_connection((target, port), timeout=TIMEOUT_S)
    sock.sendall(first)
    return sock


def until_closed(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        while sock.recv(65536):
            pass


class Intruder:
    def __init__(self, target: str, port: int, context: ssl.SSLContext, server_name: str) -> None:
        self.target, self.port, self.context, self.server_name = target, port, context, server_name
        self.held: list[socket.socket] = []

    def garbage(self) -> None:
        until_closed(connect(self.target, self.port, os.urandom(4096)))

    def wrong_version(self) -> None:
        until_closed(connect(self.target, self.port, preamble(version=999)))

    def unknown_session(self) -> None:
        until_closed(connect(self.target, self.port, preamble(os.urandom(16))))

    def garbage_for_tls(self) -> None:
        until_closed(connect(self.target, self.port, preamble() + os.urandom(4096)))

    def half_a_preamble(self) -> None:
        self.held.append(connect(self.target, self.port, preamble()[: PREAMBLE_BYTES // 2]))

    def half_a_handshake(self) -> None:
        self.held.append(connect(self.target, self.port, preamble() + b"\x16\x03\x01\x02\x00\x01"))

    def no_certificate(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(OSError), connect(self.target, self.port, preamble()) as sock:
            until_closed(context.wrap_socket(sock))

    def oversized_frame(self) -> None:
        """With a good certificate: a peer gone mad."""
        sock = connect(self.target, self.port, preamble())
        with self.context.wrap_socket(sock, server_hostname=self.server_name) as secure:
            secure.sendall(struct.pack("!I", 0xFFFF_FFFF))
            with contextlib.suppress(OSError):
                for _ in range(64):
                    secure.sendall(bytes(65536))
            until_closed(secure)

    def nonsense_request(self) -> None:
        sock = connect(self.target, self.port, preamble())
        with self.context.wrap_socket(sock, server_hostname=self.server_name) as secure:
            secure.sendall(struct.pack("!I", 64) + os.urandom(64))
            until_closed(secure)

    @property
    def ways(self) -> list[Callable[[], None]]:
        return [
            self.garbage,
            self.wrong_version,
            self.unknown_session,
            self.garbage_for_tls,
            self.half_a_preamble,
            self.half_a_handshake,
            self.no_certificate,
            self.oversized_frame,
            self.nonsense_request,
        ]


def main(target: str, port: str, tls: list[str], server_name: str, seconds: str) -> None:
    ca, certificate, key = tls
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    intruder = Intruder(target, int(port), context, server_name)
    end, made = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        for way in intruder.ways:
            with contextlib.suppress(OSError):
                way()
            made += 1
    print(made)  # noqa: T201 - its answer


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:6], *sys.argv[6:8])
