"""Peers that are not who they should be, break the protocol, or stop: one typed error, and the others go on."""

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dwcp_migrate.errors import (
    CertificateError,
    ConfigError,
    DwcpError,
    PeerRefusedError,
    VersionMismatchError,
)
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport import Link, LinkOptions, Segment
from dwcp_migrate.transport.core import frames
from dwcp_migrate.transport.io.channel import Channel, ChannelEnd, Terms
from dwcp_migrate.transport.tls import make_context
from tests.transport.pair import Listener, MakePair, Recorder, base_options, payload, send_all, wait_channels


def with_certificate(options: LinkOptions, fleet: Path, name: str) -> LinkOptions:
    return replace(options, certificate=fleet / f"{name}.example.pem", key=fleet / f"{name}.example.key")


def failure_of(options: LinkOptions) -> DwcpError:
    """Start a source with these options and return what ends it."""
    recorder = Recorder()
    link = recorder.link = Link("source", options, recorder)
    link.start()
    recorder.wait_event("failed", 5.0)
    link.close()
    return recorder.errors[0]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


@contextlib.contextmanager
def client_channel(sock: socket.socket, fleet: Path) -> Iterator[ssl.SSLSocket]:
    context = make_context("client", fleet / "ca.pem", fleet / "a.example.pem", fleet / "a.example.key")
    with context.wrap_socket(sock, server_hostname="b.example") as channel:
        yield channel


REFUSED: list[tuple[Callable[[LinkOptions, Path], LinkOptions], type[DwcpError]]] = [
    (lambda good, fleet: with_certificate(good, fleet, "expired"), CertificateError),
    (lambda good, fleet: with_certificate(good, fleet, "b"), CertificateError),
    (lambda good, _: replace(good, token=b"x" * 32), PeerRefusedError),
    (lambda good, _: replace(good, peer_name="c.example"), CertificateError),
]


@pytest.mark.parametrize(("change", "error"), REFUSED, ids=["expired", "other-name", "token", "expected-name"])
def test_a_refusal_reaches_the_source_at_once_and_harms_no_one_else(
    fleet: Path,
    make_pair: MakePair,
    change: Callable[[LinkOptions, Path], LinkOptions],
    error: type[DwcpError],
) -> None:
    pair = make_pair()
    wait_channels(pair.source, 4)
    began = time.monotonic()
    assert isinstance(failure_of(change(pair.source_options, fleet)), error)
    assert time.monotonic() - began < 3.0
    last = send_all(pair.source_link, 0, payload(4, 300_000), 50_000)
    pair.source.wait_acknowledged(0, last)
    assert pair.destination.errors == []
    assert sum(pair.destination_link.counters().channel_errors.values()) >= 1


def test_a_client_of_another_ca_is_refused(make_pair: MakePair, tmp_path: Path) -> None:
    create_authority(tmp_path)
    issue(tmp_path, "a.example")
    pair = make_pair()
    wait_channels(pair.source, 4)
    assert isinstance(failure_of(with_certificate(pair.source_options, tmp_path, "a")), CertificateError)


def test_a_listener_of_another_version_is_recognised(fleet: Path) -> None:
    def answer(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"DWCP\x00\x09\x00\x00" + bytes(16))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1 << 16)

    listener = Listener(answer)
    assert isinstance(failure_of(replace(base_options(fleet, "a"), port=listener.port)), VersionMismatchError)
    listener.close()


def test_garbage_and_silence_on_an_accepted_socket_harm_no_other_channel(make_pair: MakePair) -> None:
    pair = make_pair()
    wait_channels(pair.source, 4)
    intruders = []
    for data in (b"GET / HTTP/1.1\r\n\r\n" * 50, bytes(3000), b"\x16\x03\x01\xff\xff" + bytes(100), b""):
        ours, theirs = tcp_pair()
        ours.sendall(data)
        intruders.append(ours)
        pair.destination_link.add_channel(theirs)
    gone, theirs = tcp_pair()
    gone.close()
    pair.destination_link.add_channel(theirs)
    pair.source.wait(lambda: pair.destination_link.counters().channel_errors.get("RemoteProtocolError", 0) >= 3)
    last = send_all(pair.source_link, 0, payload(5, 300_000), 50_000)
    pair.source.wait_acknowledged(0, last)
    for sock in intruders:
        sock.close()


BAD_FRAMES = (b"\xff" * 40, b"\x04" + bytes(3) + b"\x7f" + bytes(35), b"\x05" + bytes(22) + b"\x01" + bytes(16))
"""Unknown kind; a payload past its limit; an acknowledgement of what was never sent."""


@pytest.mark.parametrize("bad", BAD_FRAMES, ids=["kind", "size", "acknowledgement"])
def test_an_authenticated_peer_that_breaks_the_protocol_loses_only_that_channel(
    fleet: Path, make_pair: MakePair, bad: bytes
) -> None:
    pair = make_pair()
    wait_channels(pair.source, 4)
    ours, theirs = tcp_pair()
    pair.destination_link.add_channel(theirs)
    with client_channel(ours, fleet) as channel:
        channel.sendall(frames.encode(frames.hello(b"t" * 32)))
        channel.recv(44)
        channel.sendall(bad)
        with contextlib.suppress(OSError):
            while channel.recv(4096):
                pass
    pair.source.wait(lambda: sum(pair.destination_link.counters().channel_errors.values()) == 1)
    last = send_all(pair.source_link, 0, payload(6, 300_000), 50_000)
    pair.source.wait_acknowledged(0, last)


def test_a_peer_that_stops_reading_is_given_up_with_bounded_memory(fleet: Path) -> None:
    held: list[ssl.SSLSocket] = []

    def welcome_and_stop(sock: socket.socket) -> None:
        if held:
            sock.close()
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        context = make_context("server", fleet / "ca.pem", fleet / "b.example.pem", fleet / "b.example.key")
        channel = context.wrap_socket(sock, server_side=True)
        channel.recv(76)
        channel.sendall(frames.encode(frames.welcome()))
        held.append(channel)

    recorder, listener = Recorder(), Listener(welcome_and_stop)
    options = replace(base_options(fleet, "a"), port=listener.port, channels=1, loss_s_max=0.5)
    link = recorder.link = Link("source", options, recorder)
    link.start()
    for sequence in range(64):
        link.send(Segment(0, sequence, 0, 500_000, 0, bytes(500_000)))
    recorder.wait_event("channel-lost no progress", 15.0)
    assert link.counters().retained_bytes == 32_000_000
    recorder.wait_event("failed", 5.0)
    link.close()
    listener.close()
    held[0].close()


def test_a_missing_key_file_is_a_configuration_error(fleet: Path) -> None:
    with pytest.raises(ConfigError, match=r"nobody\.key"):
        Link("source", replace(base_options(fleet, "a"), key=fleet / "nobody.key"), Recorder())


def test_a_connection_that_is_reset_before_tls_is_an_end_like_any_other_and_leaks_nothing(fleet: Path) -> None:
    ours, theirs = tcp_pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert select.select([ours], [], [], 5.0)[0]
    options = base_options(fleet, "a")
    context = make_context("server", fleet / "ca.pem", fleet / "a.example.pem", fleet / "a.example.key")
    with pytest.raises(ChannelEnd):
        Channel(1, ours, Terms(options, context, lambda: True), 0.0)
    assert ours.fileno() >= 0  # whoever gave it closes it
    ours.close()
