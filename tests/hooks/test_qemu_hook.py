"""The libvirt hook, run as libvirtd runs it: by its path, the domain's XML on stdin."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[2] / "hooks" / "qemu.d" / "50-dwcp-migrate"
UUID = "0123abcd-0000-1111-2222-333344445555"
XML = f"<domain type='kvm'>\n  <name>vm &amp; co</name>\n  <uuid>{UUID.upper()}</uuid>\n</domain>\n"
BUDGET_S = 2.0
ANSWER = b'{"ok":true,"error":""}\n'
STRICT = "[policy]\nhook_strict = true\n"


class AgentInPlace:
    """Listens where the agent would and answers as told."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._held.append(sock)
            self.heard.append(sock.recv(8192))
            if self._answer is not None:
                sock.sendall(self._answer)
                sock.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._held:
            sock.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def run(place: Path, *arguments: str, xml: str | None = XML, names_socket: bool = True) -> tuple[int, str, str, float]:
    """Exit code, stdout, stderr, seconds."""
    environment = {"PATH": os.environ["PATH"], "DWCP_MIGRATE_CONFIGURATION": str(place / "agent.toml")}
    if names_socket:
        environment["DWCP_MIGRATE_HOOK_SOCKET"] = str(place / "hook.sock")
    began = time.monotonic()
    process = subprocess.Popen(
        [HOOK, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdin is not None
    if xml is None:  # libvirtd that never closes the pipe
        process.wait(timeout=10)
        out, err = process.stdout, process.stderr
        assert out is not None
        assert err is not None
        said = out.read(), err.read()
        for pipe in (process.stdin, out, err):
            pipe.close()
    else:
        said = process.communicate(xml, timeout=10)
    return process.returncode, *said, time.monotonic() - began


@pytest.fixture
def agent(place: Path) -> Iterator[AgentInPlace]:
    found = AgentInPlace(place / "hook.sock", ANSWER)
    yield found
    found.close()


BEGIN = ("vm", "migrate", "begin", "-")


def test_an_incoming_migration_is_announced_and_stdout_stays_empty(place: Path, agent: AgentInPlace) -> None:
    code, out, err, _ = run(place, *BEGIN)
    assert (code, out, err) == (0, "", "")
    assert agent.heard == [f'{{"operation": "migrate begin", "name": "vm", "uuid": "{UUID}"}}\n'.encode()]


@pytest.mark.parametrize(
    "operation", ["prepare", "start", "started", "stopped", "release", "restore", "reconnect", "attach", "nonsense"]
)
def test_other_operations_never_reach_the_agent_and_never_fail(
    place: Path, agent: AgentInPlace, operation: str
) -> None:
    (place / "agent.toml").write_text(STRICT)
    assert run(place, "vm", operation, "begin", "-")[:3] == (0, "", "")
    assert agent.heard == []


@pytest.mark.parametrize("quoted", ['"{}"  # here', "'{}'"])
def test_it_finds_the_agent_in_the_configured_runtime_directory(place: Path, agent: AgentInPlace, quoted: str) -> None:
    lines = ['name = "hv1"', f"runtime_directory = {quoted.format(place)}", "[policy]", "hook_strict = true"]
    (place / "agent.toml").write_text("\n".join(lines))
    assert run(place, *BEGIN, names_socket=False)[0] == 0
    assert len(agent.heard) == 1


def test_a_key_of_another_table_is_not_the_runtime_directory(place: Path, agent: AgentInPlace) -> None:
    (place / "agent.toml").write_text(f'[record]\nruntime_directory = "{place}"\n')
    assert "the agent was not told" in run(place, *BEGIN, names_socket=False)[2]
    assert agent.heard == []


def test_no_arguments_are_no_failure(place: Path) -> None:
    assert run(place)[:2] == (0, "")


@pytest.mark.parametrize(
    ("configuration", "code"),
    [
        ("", 0),
        ("not toml", 0),
        ("policy = 1", 0),
        ("[policy]\nhook_strict = false\n", 0),
        ("[policy]\nhook_strict = 1\n", 0),
        (STRICT, 1),
    ],
)
def test_without_an_agent_it_fails_only_in_strict_mode(place: Path, configuration: str, code: int) -> None:
    (place / "agent.toml").write_text(configuration)
    got, out, err, _ = run(place, *BEGIN)
    assert (got, out) == (code, "")
    assert "the agent was not told" in err


def test_an_agent_that_does_not_answer_costs_about_a_second(place: Path) -> None:
    mute = AgentInPlace(place / "hook.sock", None)
    code, out, _, took_s = run(place, *BEGIN)
    mute.close()
    assert (code, out) == (0, "")
    assert took_s < BUDGET_S


def test_xml_that_never_ends_costs_about_a_second(place: Path, agent: AgentInPlace) -> None:
    code, out, err, took_s = run(place, *BEGIN, xml=None)
    assert (code, out) == (0, "")
    assert "no UUID" in err
    assert took_s < BUDGET_S
    assert agent.heard == []


@pytest.mark.parametrize("xml", ["", "<domain/>", "<uuid>not-a-uuid</uuid>", "\x00\x01" * 1000, "a" * (3 << 20)])
def test_xml_without_a_uuid_is_no_failure(place: Path, agent: AgentInPlace, xml: str) -> None:
    code, out, _, _ = run(place, *BEGIN, xml=xml)
    assert (code, out) == (0, "")
    assert agent.heard == []


@pytest.mark.parametrize("answer", [b"", b"garbage\n", b'{"ok":false}\n', b"{}\n", b"[1]\n", b"x" * 8192])
def test_an_answer_that_makes_no_sense_is_no_failure(place: Path, answer: bytes) -> None:
    odd = AgentInPlace(place / "hook.sock", answer)
    code, out, err, _ = run(place, *BEGIN)
    odd.close()
    assert (code, out) == (0, "")
    assert "not told" in err


def test_it_runs_on_the_systems_python_alone() -> None:
    assert HOOK.read_text().startswith("#!/usr/bin/python3 -IS\n")
    assert HOOK.stat().st_mode & 0o777 == 0o755
