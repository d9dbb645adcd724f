"""`check PEER` between real agents: real TLS, the real link port, the real hook, and what may be wrong with each."""

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dwcp_migrate.cli import run
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.protocol.control import CONTROL_SESSION, PROBE_BYTES_MAX, Probe, encode_control
from dwcp_migrate.transport.core.frames import Preamble, encode_preamble
from dwcp_migrate.transport.tls import make_context
from tests.agent.hosts import DESTINATION_ADDRESS, WAIT_S, Host, echoing

Hosts = tuple[Host, Host]
Check = Callable[..., tuple[int, dict[str, Any]]]

HOOK = Path(__file__).parents[2] / "hooks/qemu.d/50-dwcp-migrate"
LINK_PORT = 7802
SMALL = ("--seconds", "2", "--mebibytes", "4", "--channels", "3")


def start(host: Host, **environment: str) -> None:
    host.spawn(
        DWCP_MIGRATE_HOOK=str(HOOK), DWCP_MIGRATE_HOOK_SOCKET=str(host.directory / "run/hook.sock"), **environment
    )
    host.ready()


def start_changed(host: Host, program: str) -> None:
    """Start an agent that runs a program before anything of its own."""
    (host.directory / "sitecustomize.py").write_text(program)
    start(host, PYTHONPATH=str(host.directory))


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    def run_it(host: Host, *arguments: str) -> tuple[int, dict[str, Any]]:
        socket_path = str(host.directory / "run/api.sock")
        code = run(["check", "destination.lab", "--json", "--socket", socket_path, *(arguments or SMALL)])
        return code, json.loads(capsys.readouterr().out)

    return run_it


@pytest.fixture
def running(hosts: Hosts) -> Hosts:
    for host in hosts:
        start(host)
    return hosts


def verdicts(answer: dict[str, Any]) -> dict[str, str]:
    return {found["id"]: found["verdict"] for found in answer["checks"] if found["verdict"] != "ok"}


def one(answer: dict[str, Any], name: str) -> dict[str, str]:
    return next(found for found in answer["checks"] if found["id"] == name)


def test_a_peer_as_it_should_be_is_tried_to_the_end_and_measured(running: Hosts, check: Check) -> None:
    source, destination = running
    code, answer = check(source)
    assert code == 0
    assert verdicts(answer) == {"name": "warn"}, answer  # destination.lab is in no name server
    measured = answer["facts"]["measured"]
    assert (measured["channels"], measured["error"]) == (3, "")
    assert 0 < measured["bytes"] <= 4 << 20
    assert measured["bytes_per_s"] > 0
    assert answer["verdict"]["bytes_per_s"] == measured["bytes_per_s"]
    assert "would be accelerated, at" in answer["verdict"]["text"]
    assert "libvirt has not called it" in one(answer, "hook")["what"]
    facts = destination.facts()
    assert facts.hook.pending == 0, "a trial of the hook must open no door"
    assert destination.status().totals.announcements == 0


def test_a_peer_is_found_by_its_address_and_a_mistyped_one_is_answered_with_the_nearest(
    pair: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = pair
    socket_path = str(source.directory / "run/api.sock")
    assert run(["check", DESTINATION_ADDRESS, "--socket", socket_path, *SMALL]) == 0
    assert "A migration to destination.lab would be accelerated" in capsys.readouterr().out
    assert run(["check", "destinatoin.lab", "--socket", socket_path]) == 3
    assert "did you mean destination.lab?" in capsys.readouterr().err
    assert run(["check", "source.lab", "--socket", socket_path]) == 3
    assert "is this host" in capsys.readouterr().err


def test_a_peer_that_is_down_is_named_with_what_to_look_at(hosts: Hosts, check: Check) -> None:
    source, _ = hosts
    start(source)
    code, answer = check(source)
    assert code == 1
    assert answer["verdict"]["reason"] == "unreachable"
    assert "is its agent running" in one(answer, "agent")["remedy"]
    assert "unaccelerated (unreachable)" in answer["verdict"]["text"]
    assert answer["facts"]["measured"] is None


def test_a_peer_of_another_authority_fails_by_its_certificate(hosts: Hosts, tmp_path: Path, check: Check) -> None:
    source, destination = hosts
    create_authority(tmp_path / "other")
    issue(tmp_path / "other", destination.name)
    made = tmp_path / "other"
    keys = (made / f"{destination.name}.pem", made / f"{destination.name}.key")
    destination.tables["tls"] = {"ca": made / "ca.pem", "certificate": keys[0], "key": keys[1]}
    for host in hosts:
        start(host)
    code, answer = check(source)
    assert (code, answer["verdict"]["reason"]) == (1, "certificate")
    assert one(answer, "agent")["remedy"]


def test_a_peer_of_another_protocol_fails_by_its_version(hosts: Hosts, check: Check) -> None:
    source, destination = hosts
    start(source)
    start_changed(destination, "from dwcp_migrate.protocol import control\ncontrol.VERSIONS = (2,)\n")
    code, answer = check(source)
    assert (code, answer["verdict"]["reason"]) == (1, "version")
    assert one(answer, "agent")["remedy"] == "upgrade the older of the two agents"


def test_an_older_agent_that_knows_no_such_question_is_said_to_be_one(hosts: Hosts, check: Check) -> None:
    source, destination = hosts
    start(source)
    program = "from dwcp_migrate.protocol.control import _bodies\ndel _bodies['examine'], _bodies['probe']\n"
    start_changed(destination, program)
    code, answer = check(source)
    assert code == 0
    assert verdicts(answer) == {"name": "warn", "accepts": "warn", "link": "warn"}
    assert "older than this question" in one(answer, "accepts")["what"]
    assert "how fast was not measured" in answer["verdict"]["text"]


def test_a_clock_that_is_off_is_told_with_its_difference(hosts: Hosts, check: Check) -> None:
    source, destination = hosts
    start(source)
    program = "from dwcp_migrate import clocks\nreal = clocks.wall_clock\nclocks.wall_clock = lambda: real() + 90\n"
    start_changed(destination, program)
    code, answer = check(source)
    assert code == 0
    clock = one(answer, "clock")
    assert clock["verdict"] == "warn"
    assert 85 < float(clock["what"].split()[3]) < 95
    assert "ahead of" in clock["what"]
    assert "NTP" in clock["remedy"]


def test_a_cordoned_peer_would_refuse(pair: Hosts, check: Check) -> None:
    source, destination = pair
    destination.get("/v1/drain", "POST")
    code, answer = check(source)
    destination.get("/v1/undrain", "POST")
    assert (code, answer["verdict"]["reason"]) == (1, "draining")
    assert "uncordon" in one(answer, "accepts")["remedy"]


def test_a_missing_hook_fails_where_libvirt_cannot_be_asked_instead(hosts: Hosts, check: Check) -> None:
    source, destination = hosts
    destination.tables["policy"] = {"require_announcement": True}
    start(source)
    destination.start(DWCP_MIGRATE_HOOK=str(destination.directory / "nothing"))
    code, answer = check(source)
    assert (code, answer["verdict"]["reason"]) == (1, "not-announced")
    assert "No such file" in one(answer, "hook")["what"]
    assert "install the hook" in one(answer, "hook")["remedy"]


def test_a_silent_address_and_one_of_somebody_else_are_named(hosts: Hosts, check: Check) -> None:
    source, destination = hosts
    destination.tables["link"] = {"listen": DESTINATION_ADDRESS}
    for host in hosts:
        start(host)
    code, answer = check(source)
    assert code == 0
    assert verdicts(answer) == {"name": "warn", "address:fd77::2": "warn"}


def test_a_path_on_which_the_link_port_is_silent_is_named(hosts: Hosts, check: Check) -> None:
    source, _ = hosts
    source.peer_lines = [f"link_addresses = ['{DESTINATION_ADDRESS}', '10.77.0.99']"]
    for host in hosts:
        start(host)
    code, answer = check(source)
    assert code == 0
    assert verdicts(answer) == {"name": "warn", "address:10.77.0.99": "warn"}
    assert answer["facts"]["peer"]["reachable"]


def test_a_measurement_keeps_to_the_links_maximum(pair: Hosts, check: Check) -> None:
    source, _ = pair
    source.tables["bandwidth"] = {"link_bytes_per_s_max": 1_000_000.0}
    assert source.reload() == 200
    code, answer = check(source)
    measured = answer["facts"]["measured"]
    assert code == 0
    assert measured["held_to_bytes_per_s"] == 1_000_000.0
    assert measured["bytes"] <= 1_000_000.0 * 2 + 3 * PROBE_BYTES_MAX
    assert "held to 8.0 Mbit/s by link_bytes_per_s_max" in answer["verdict"]["text"]


def test_a_measurement_takes_a_trickle_beside_a_migration(pair: Hosts, check: Check) -> None:
    source, destination = pair
    with echoing(destination.listen()), source.connect(DESTINATION_ADDRESS) as guest:
        guest.sendall(b"stream")
        source.wait(lambda status: any(found.state != "opening" for found in status.migrations))
        code, answer = check(source)
    measured = answer["facts"]["measured"]
    assert code == 0
    assert answer["facts"]["running"] >= 1
    assert measured["held_to_bytes_per_s"] == 64 * 1024
    assert measured["bytes"] <= 64 * 1024 * 2 + 3 * PROBE_BYTES_MAX
    assert "running on the two hosts" in one(answer, "link")["what"]
    assert "how fast was not measured" in answer["verdict"]["text"]


def test_a_stranger_gets_no_answer_to_a_measurement(pair: Hosts, authority: Path) -> None:
    """One of the fleet's CA that is no peer: nothing of what it sends is counted, and nothing comes back."""
    source, destination = pair
    own = (authority / "stranger.lab.pem", authority / "stranger.lab.key")
    context = make_context("client", authority / "ca.pem", *own)
    plain = source.namespace.call(socket.create_connection, (DESTINATION_ADDRESS, LINK_PORT), WAIT_S)
    plain.sendall(encode_preamble(Preamble(CONTROL_SESSION)))
    with context.wrap_socket(plain, server_hostname=destination.name) as stranger:
        answer = b""
        with contextlib.suppress(OSError):
            stranger.sendall(encode_control(1, Probe(data=bytes(PROBE_BYTES_MAX))))
            answer = stranger.recv(1)
    assert answer == b""
    destination.wait(lambda status: status.totals.rejected.get("link unknown-peer", 0) >= 1)


@pytest.mark.parametrize("query", ["bytes=1e9", "seconds=11", "channels=17", "seconds=-1", "bytes=many"])
def test_the_agent_itself_holds_the_bounds_of_a_measurement(pair: Hosts, query: str) -> None:
    source, _ = pair
    status, body = source.get(f"/v1/check?peer=destination.lab&{query}")
    assert status == 400
    assert b"must be a number from 0 to" in body
