"""Connections as /proc/net shows them: a real one of this process, and lines of the kernel's."""

import os
import socket

from dwcp_migrate.hypervisor.tcp_connections import TcpConnection, parse, read_established

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def test_a_connection_of_this_process_is_seen_from_both_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        near, far = client.getsockname()[1], client.getpeername()[1]
        found = read_established()
        accepted.close()
    assert TcpConnection("127.0.0.1", near, "127.0.0.1", far, os.getuid()) in found
    assert TcpConnection("127.0.0.1", far, "127.0.0.1", near, os.getuid()) in found


def test_ipv6_is_read_and_mapped_ipv4_is_told_as_ipv4() -> None:
    six = "0: B80D0120000000000000000001000000:C001 B80D0120000000000000000002000000:C000 01 0:0 0:0 0 107 0 1\n"
    mapped = "1: 0000000000000000FFFF00000100000A:C002 0000000000000000FFFF00000200000A:C003 01 0:0 0:0 0 0 0 1\n"
    assert parse(HEAD + six + mapped) == [
        TcpConnection("2001:db8::1", 49153, "2001:db8::2", 49152, 107),
        TcpConnection("10.0.0.1", 49154, "10.0.0.2", 49155, 0),
    ]


def test_what_is_not_established_or_not_understood_is_left_out() -> None:
    listening = "0: 0100007F:C000 00000000:0000 0A 0:0 0:0 0 0 0 1\n"
    assert parse(f"{HEAD}{listening}garbage\n1: zz:zz 0:0 01 0:0 0:0 0 0 0 1\n\n") == []
    assert parse("") == []
