"""Real agents on two hosts, plain TCP in the place of QEMU: accelerated, passed through, refused."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport.core.frames import Preamble, encode_preamble
from tests.agent.hosts import (
    DESTINATION_ADDRESS,
    EXPLICIT_PORT,
    PORT,
    WAIT_S,
    Host,
    announce,
    echoing,
    exchange,
    is_reset,
    receive_all,
)

Pair = tuple[Host, Host]
UUID = "0123abcd-0000-1111-2222-333344445555"


def test_a_migration_between_two_agents_is_accelerated(pair: Pair) -> None:
    source, destination = pair
    data = os.urandom(3 << 20)
    with echoing(destination.listen()) as brought:
        assert exchange(source.connect(DESTINATION_ADDRESS), data) == data
    assert brought == [data]
    (out,) = source.ended()
    (into,) = destination.ended()
    assert out.id == into.id
    assert (out.role, into.role) == ("source", "destination")
    assert (out.peer, into.peer) == ("destination.lab", "source.lab")
    assert out.passthrough_reason == ""
    assert out.counters.raw_bytes == len(data)
    for record in (out, into):
        assert (record.counters.channels_lost, record.counters.link_losses) == (0, 0)


def test_connections_to_one_port_are_one_migration_and_arrive_in_order(pair: Pair) -> None:
    source, destination = pair
    listener = destination.listen()
    sockets = [source.connect(DESTINATION_ADDRESS) for _ in range(5)]
    arrived = []
    for _ in sockets:
        sock, _ = listener.accept()
        arrived.append(sock)
    for number, sock in enumerate(sockets):
        sock.sendall(bytes([number]))
    assert [sock.recv(1) for sock in arrived] == [bytes([number]) for number in range(5)]
    for sock in [*sockets, *arrived]:
        sock.close()
    (record,) = source.ended()
    assert sum(record.connections.values()) == 5
    listener.close()


def test_a_connection_that_comes_while_a_migration_ends_is_not_lost(pair: Pair) -> None:
    source, destination = pair
    with echoing(destination.listen()):
        for number in range(4):
            data = bytes([number]) * 1000
            assert exchange(source.connect(DESTINATION_ADDRESS), data) == data


def test_ipv6_migrations_are_accelerated_too(pair: Pair) -> None:
    source, destination = pair
    with echoing(destination.listen("::")) as brought:
        assert exchange(source.connect("fd77::2"), b"stream") == b"stream"
    assert brought == [b"stream"]
    (record,) = source.ended()
    assert (record.address, record.passthrough_reason) == ("fd77::2", "")


def test_the_explicit_form_reaches_the_same_port_of_the_peer(pair: Pair) -> None:
    source, destination = pair
    with echoing(destination.listen(port=EXPLICIT_PORT)) as brought:
        assert exchange(source.connect("127.0.0.1", EXPLICIT_PORT), b"stream") == b"stream"
    assert brought == [b"stream"]
    (record,) = source.ended()
    assert (record.address, record.port, record.passthrough_reason) == (DESTINATION_ADDRESS, EXPLICIT_PORT, "")
    assert source.facts().explicit_peer == "destination.lab"


def test_a_reset_reaches_the_other_side(pair: Pair) -> None:
    source, destination = pair
    listener = destination.listen()
    sock = source.connect(DESTINATION_ADDRESS)
    arrived, _ = listener.accept()
    sock.sendall(b"QEVM")
    arrived.settimeout(20)
    assert arrived.recv(4) == b"QEVM"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    assert is_reset(arrived)
    listener.close()
    (record,) = source.ended()
    assert record.result == "failed"


def test_an_unannounced_migration_is_refused_and_passes_through(pair: Pair) -> None:
    source, destination = pair
    destination.tables["policy"] = {"require_announcement": True}
    destination.reload()
    refused = destination.status().totals.refused.get("not-announced", 0)
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
        (record,) = source.ended()
        assert record.passthrough_reason == "not-announced"
        assert destination.status().totals.refused["not-announced"] == refused + 1
        assert announce(destination, "vm", UUID) == b'{"ok":true,"error":""}\n'
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    (record,) = source.ended()
    assert (record.passthrough_reason, record.domain, record.uuid) == ("", "vm", UUID)
    assert destination.ended()[0].domain == "vm"
    assert destination.facts().hook.last_at > 0


def test_a_port_outside_the_destinations_range_is_refused(pair: Pair) -> None:
    source, destination = pair
    destination.tables["intercept"] = {"port_min": PORT + 1, "port_max": PORT + 1}
    destination.reload()
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert source.ended()[0].passthrough_reason == "port"


def test_a_draining_destination_refuses_and_the_migration_passes_through(pair: Pair) -> None:
    source, destination = pair
    assert destination.get("/v1/drain", "POST")[0] == 200
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert source.ended()[0].passthrough_reason == "draining"
    assert destination.status().intercept.armed is False
    assert destination.get("/v1/undrain", "POST")[0] == 200
    assert destination.status().intercept.armed is True


@pytest.mark.parametrize("who", ["stranger", "foreign", "expired"])
def test_a_certificate_that_is_not_good_is_refused_and_the_migration_passes_through(
    pair: Pair, who: str, tmp_path: Path
) -> None:
    source, destination = pair
    tls, name = source.tls, "stranger.lab"
    if who != "stranger":
        tls, name = tmp_path, "source.lab"
        if who == "expired":
            for file in ("ca.pem", "ca.key"):
                (tls / file).write_bytes((source.tls / file).read_bytes())
        else:
            create_authority(tls)
        issue(tls, name, days=-1 if who == "expired" else 10)
    source.tables["tls"] = {"ca": source.tls / "ca.pem", "certificate": tls / f"{name}.pem", "key": tls / f"{name}.key"}
    source.reload()
    before = destination.status().totals.rejected
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    (record,) = source.ended()
    assert record.passthrough_reason in {"certificate", "unreachable"}
    key = "link unknown-peer" if who == "stranger" else "link tls"
    addresses = len(source.peers[0][1])  # each of them is tried
    assert destination.status().totals.rejected[key] == before.get(key, 0) + addresses
    assert destination.status().migrations == []


@pytest.mark.parametrize(
    "garbage",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"DWCP", b"DWCP\x00\x63" + b"\0" * 18, b"DWCP\x00\x01" + b"\0" * 18 + b"x" * 999],
)
def test_garbage_on_the_link_port_is_closed_and_counted(pair: Pair, garbage: bytes) -> None:
    _, destination = pair
    before = sum(destination.status().totals.rejected.values())
    with destination.connect("127.0.0.1", 7802) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        receive_all(sock, or_reset=True)
    destination.wait(lambda status: sum(status.totals.rejected.values()) == before + 1)
    assert destination.status().migrations == []


def test_a_channel_of_an_unknown_session_is_closed_and_counted(pair: Pair) -> None:
    _, destination = pair
    with destination.connect("127.0.0.1", 7802) as sock:
        sock.sendall(encode_preamble(Preamble(b"unknown-session-")))
        assert receive_all(sock, or_reset=True) == b""
    destination.wait(lambda status: status.totals.rejected["link unknown-session"] == 1)


def test_a_connection_that_nobody_redirected_is_reset_and_counted(pair: Pair) -> None:
    source, _ = pair
    with contextlib.suppress(ConnectionResetError):
        assert is_reset(source.connect("127.0.0.1", 7801))
    assert source.status().totals.rejected["redirect not-redirected"] == 1


@pytest.mark.parametrize("garbage", [b"\n", b"{}\n", b"x" * 10_000, b'{"operation": 1}\n'])
def test_garbage_on_the_hook_socket_announces_nothing(pair: Pair, garbage: bytes) -> None:
    _, destination = pair
    before = destination.status().totals
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(destination.directory / "run" / "hook.sock"))
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        receive_all(sock, or_reset=True)
    after = destination.wait(lambda status: sum(status.totals.rejected.values()) > sum(before.rejected.values()))
    assert after.totals.announcements == before.announcements


def test_peers_are_seen_with_their_version_and_round_trip(pair: Pair) -> None:
    source, _ = pair
    (peer,) = source.facts().peers
    assert (peer.reachable, peer.protocol, peer.state, peer.code) == (True, 1, "running", "")
    assert peer.rtt_s > 0


def test_a_wrong_configuration_is_refused_and_the_old_one_stays(pair: Pair) -> None:
    source, _ = pair
    source.tables["policy"] = {"nonsense": True}
    assert source.reload() == 422
    assert "nonsense" in source.facts().configuration_error
    assert "nonsense" in source.status().configuration.error
    assert source.status().peers == 1


def test_a_reload_says_what_waits_for_a_restart_and_changes_the_rest(pair: Pair) -> None:
    source, _ = pair
    source.settings |= {"log_level": "debug", "log_format": "json"}
    source.tables["link"] = {**source.tables["link"], "port": 7911, "channels": 4}
    before = source.status().configuration.read_at
    assert source.reload() == 200
    status = source.status().configuration
    assert sorted(status.pending_restart) == ["link.port", "log_format"]
    assert status.read_at > before
    assert source.facts().pending_restart == status.pending_restart
    values = msgspec.json.decode(source.get("/v1/config")[1], type=schema.RunningConfig).values
    assert (values["log_level"], values["link"]["channels"], values["link"]["port"]) == ("debug", 4, 7802)
    source.tables["link"] = {key: value for key, value in source.tables["link"].items() if key != "port"}
    source.settings.pop("log_format")
    source.settings["log_format"] = "text"
    assert source.reload() == 200
    assert source.status().configuration.pending_restart == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/migrations/ffff", 404),
        ("/v1/migrations/%2e%2e", 404),
        ("/v1/history?limit=0", 400),
        ("/v1/history?limit=x", 400),
        ("/v1/nothing", 404),
        ("/", 404),
    ],
)
def test_wrong_requests_get_a_typed_failure(pair: Pair, path: str, status: int) -> None:
    code, body = pair[0].get(path)
    assert code == status
    assert b'"error":' in body


def test_a_live_agents_metrics_please_promtool_and_tell_that_its_peer_answers(pair: Pair) -> None:
    source, _ = pair
    source.wait(lambda status: status.peers_up == {"destination.lab": True})
    text = source.namespace.call(_metrics)
    assert b'dwcp_migrate_peer_up{peer="destination.lab"} 1.0' in text
    assert b"process_open_fds" in text
    promtool = Path(sys.executable).with_name("promtool")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def _metrics() -> bytes:
    with urllib.request.urlopen("http://127.0.0.1:7803/metrics", timeout=WAIT_S) as answer:
        found: bytes = answer.read()
    return found
