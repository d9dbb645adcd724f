"""Where a port is listened on: the kernel's tables as text, and the real one of a namespace."""

import socket

import pytest

from dwcp_migrate.hypervisor.listening import listening_addresses, parse
from tests.hypervisor.namespace import Namespace

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


@pytest.mark.parametrize(
    ("local", "state", "address"),
    [
        ("0100007F:C000", "0A", ["127.0.0.1"]),
        ("00000000:C000", "0A", ["127.0.0.1"]),
        ("0100007F:C001", "0A", []),
        ("0100007F:C000", "01", []),
        ("B80D0120000000000000000001000000:C000", "0A", ["2001:db8::1"]),
        ("0" * 32 + ":C000", "0A", ["::1"]),
        ("0000000000000000FFFF00000100000A:C000", "0A", ["10.0.0.1"]),
    ],
)
def test_listeners_are_read_out_of_the_kernels_table(local: str, state: str, address: list[str]) -> None:
    row = f"   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0\n"
    assert parse(HEADER + row, 49152) == address


def test_a_table_without_rows_lists_nothing() -> None:
    assert parse(HEADER, 49152) == parse("", 49152) == []


def test_the_listeners_of_a_host_are_found() -> None:
    namespace = Namespace()
    try:
        namespace.run("ip", "addr", "add", "10.9.0.1/24", "dev", "lo")
        with namespace.call(socket.create_server, ("10.9.0.1", 49152)):
            assert namespace.call(listening_addresses, 49152) == ["10.9.0.1"]
            assert namespace.call(listening_addresses, 49153) == []
    finally:
        namespace.close()
