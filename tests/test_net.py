"""Sockets and certificates: the options that are set, breaking off, and names in a certificate."""

import socket
import ssl

import pytest

from dwcp_migrate.net import (
    check_connected,
    dns_names,
    end_when_unacknowledged,
    family_of,
    open_tcp_socket,
    probe_when_idle,
    reset_and_close,
    wrap_in_tls,
)


def test_family_follows_from_the_address() -> None:
    assert family_of("192.0.2.1") == socket.AF_INET
    assert family_of("2001:db8::1") == socket.AF_INET6


def test_socket_to_dial_with_does_not_block_and_does_not_wait_for_acknowledgements() -> None:
    with open_tcp_socket("127.0.0.1") as sock:
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_dead_peer_is_noticed_by_unacknowledged_bytes_and_by_probes() -> None:
    with open_tcp_socket("127.0.0.1") as sock:
        end_when_unacknowledged(sock, 3000)
        probe_when_idle(sock, interval_s=1, probes=3)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3


def test_other_end_of_a_reset_reads_an_error_and_not_an_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as theirs:
        ours, _ = server.accept()
        reset_and_close(ours)
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)


def test_connection_that_was_refused_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()
    with open_tcp_socket("127.0.0.1") as sock:
        sock.connect_ex(where)
        with pytest.raises(ConnectionRefusedError):
            check_connected(sock)


def test_tls_is_not_put_on_a_connection_that_is_gone() -> None:
    with open_tcp_socket("127.0.0.1") as sock:
        with pytest.raises(OSError, match="not connected"):
            wrap_in_tls(sock, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "hv2")
        assert sock.fileno() >= 0


def test_names_in_a_certificate_are_its_dns_names_alone() -> None:
    assert dns_names({"subjectAltName": (("DNS", "hv1"), ("IP Address", "192.0.2.1"), ("DNS", "hv2"))}) == [
        "hv1",
        "hv2",
    ]
    assert dns_names(None) == []
