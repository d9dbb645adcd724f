"""A host of the fleet that shows a ticket which it should not have: run inside its network namespace.

    python forger.py ADDRESS PORT CA CERTIFICATE KEY SERVER_NAME PERMIT

PERMIT is the JSON of a `session.control.Permit`. Prints the code of the refusal, or `opened`.
"""

import os
import socket
import ssl
import sys

import msgspec

from dwcp_migrate.protocol.control import (
    CONTROL_SESSION,
    Open,
    Permit,
    Refused,
    control_frames,
    decode_control,
    encode_control,
)
from dwcp_migrate.transport.core.frames import Preamble, encode_preamble

LINK_PORT = 7802
TIMEOUT_S = 10.0


def main(address: str, port: str, tls: list[str], server_name: str, permit: str) -> None:
    ca, certificate, key = tls
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    request = Open(
        versions=(1,),
        session_id=os.urandom(16),
        token=os.urandom(32),
        address=address,
        port=int(port),
        cache_bytes=0,
        channels_max=1,
        permit=msgspec.json.decode(permit, type=Permit),
    )
    sock = socket.create_connection((address, LINK_PORT), timeout=TIMEOUT_S)
    sock.sendall(encode_preamble(Preamble(CONTROL_SESSION)))
    with context.wrap_socket(sock, server_hostname=server_name) as secure:
        secure.sendall(encode_control(1, request))
        frames = control_frames()
        while data := secure.recv(65536):
            for envelope in frames.feed(data):
                answer = decode_control(envelope)
                print(answer.code if isinstance(answer, Refused) else "opened")  # noqa: T201 - its answer
                return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:6], *sys.argv[6:8])
