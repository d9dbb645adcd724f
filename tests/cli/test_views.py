import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.cli import run
from dwcp_migrate.cli.host.status import render
from dwcp_migrate.state.engine_status import EngineMember, EngineStatus

Call = Callable[..., tuple[int, str, str]]
Make = Callable[..., Any]
MEMBERS = [
    EngineMember(name="hv1", role="voter", connected=True),
    EngineMember(name="hv2", role="leader", connected=True),
]


def test_status_shows_agent_redirect_peers_and_migrations(call: Call) -> None:
    code, out, _ = call("status")
    assert code == 0
    assert "hv1, running, up 2 h 1 min" in out
    assert "armed, ports 49152-49215 towards 1 address, 12 connections caught" in out
    assert "3 completed, 1 failed, 2 unaccelerated (unreachable 2)" in out
    assert " hv2    10.0.0.2:7802   running   40.2 ms   0.1.0" in out
    assert " 1f2e3d4c   web1     to hv2   precopy 2   75 %       800.0 Mbit/s   5.0     11 s" in out


def test_status_has_no_colour_and_no_line_is_padded(call: Call) -> None:
    _, out, _ = call("status")
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (EngineStatus(engine="raft", state="leader", leader="hv1", members=MEMBERS[:1]), ""),
        (EngineStatus(engine="raft", state="follower", leader="hv2", members=MEMBERS), "raft, follower, led by hv2"),
        (EngineStatus(engine="raft", state="candidate", members=MEMBERS), "raft, candidate, NO LEADER"),
        (EngineStatus(engine="raft", state="stopped", error="disk full"), "STOPPED: disk full"),
    ],
)
def test_status_says_where_the_fleets_state_stands(
    call: Call, agent: Any, status: Make, engine: EngineStatus, said: str
) -> None:
    agent.status = status(coordination=engine)
    (line,) = [line for line in call("status")[1].splitlines() if line.startswith("Fleet")] or [""]
    assert line == (f"Fleet:     {said}" if said else "")


def test_status_says_what_is_broken(call: Call, agent: Any, status: Make, peer: Make) -> None:
    broken = schema.RedirectStatus(wanted=True, armed=False, error="EPERM", port_min=49152, port_max=49215)
    down = schema.Libvirt(uri="qemu:///system", connected=False, error="refused")
    agent.status = status(intercept=broken, libvirt=down, migrations=[])
    agent.peers = [peer(reachable=False, code="certificate", error="it expired")]
    _, out, _ = call("status")
    assert "NOT ARMED: EPERM" in out
    assert "NOT CONNECTED: refused" in out
    assert "certificate" in out
    assert "it expired" in out
    assert "No migration under way." in out


def test_status_gives_the_error_of_a_peer_a_column_of_its_own(call: Call, agent: Any, peer: Make) -> None:
    agent.peers = [peer(), peer(name="hv3", reachable=False, code="certificate", error="it\nexpired")]
    lines = call("status")[1].splitlines()
    header = next(line for line in lines if line.startswith(" Peer"))
    good, bad = (next(line for line in lines if line.startswith(f" {name}")) for name in ("hv2", "hv3"))
    at = header.index("Error")
    assert bad[at:] == "it expired"
    assert good[header.index("Version") : at].strip() == "0.1.0"
    assert bad[header.index("Version") : at].strip() == "-"
    agent.peers = [peer()]
    assert "Error" not in call("status")[1]


LONG = "a-host-with-a-long-name.of-a-long-domain.example.net"


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("name", ["hv2", LONG])
def test_status_fits_a_terminal(status: Make, peer: Make, migration: Make, width: int, name: str) -> None:
    failed = peer(
        name=name, reachable=False, code="certificate-not-yet-valid", error="its certificate is not valid " * 9
    )
    running = [
        migration(peer=name, domain=name, eta_s=-1, eta_note="does not converge"),
        migration(peer=name, state="passthrough", passthrough_reason="unreachable"),
    ]
    broken = schema.RedirectStatus(wanted=True, armed=False, error="no permission " * 9, port_min=49152, port_max=49215)
    answer = status(name=name, intercept=broken, migrations=running)
    text = render(answer, [peer(name=name), peer(name="hv9"), failed], width)
    assert max(map(len, text.splitlines())) <= width
    assert all(word in text for word in ("Peer", "RTT", "40.2 ms", "certificate", "not valid", "Domain", "ETA"))
    without = render(answer, [peer(name=name), failed])
    assert any(LONG in line or "its certificate is not valid its" in line for line in without.splitlines())
    assert max(map(len, without.splitlines())) > 200


def test_status_as_json_is_the_agents_status_with_the_peers_views(call: Call, agent: Any) -> None:
    code, out, _ = call("status", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["name"] == "hv1"
    assert answer["migrations"][0]["domain"] == "web1"
    assert answer["peer_views"][0]["rtt_s"] == agent.peers[0].rtt_s


def test_history_lists_newest_first_and_says_why_one_was_unaccelerated(call: Call, agent: Any, ended: Make) -> None:
    agent.ended = [
        ended(id="b" * 32, domain="db", passthrough_reason="unreachable", result="failed", reason="cancelled"),
        ended(),
    ]
    _, out, _ = call("history")
    lines = out.splitlines()
    assert "unaccelerated: unreachable" in lines[2]
    assert "120 ms" in lines[3]
    assert len(json.loads(call("history", "--json", "-n", "1")[1])) == 1


def test_history_of_a_new_agent_says_so(call: Call, agent: Any) -> None:
    agent.ended = []
    assert call("history")[:2] == (0, " No migration has ended yet.\n")


@pytest.mark.parametrize("limit", ["0", "1001"])
def test_history_refuses_a_limit_that_the_agent_does_not_serve(call: Call, limit: str) -> None:
    assert call("history", "-n", limit)[0] == 2


def test_show_lays_out_like_domjobinfo(call: Call) -> None:
    code, out, _ = call("show", "1f2e", "--events")
    assert code == 0
    assert "Operation:         Outgoing migration (memory)" in out
    assert "Data processed:    5.0 GiB" in out
    assert "Phases:            opening 1.0 s, precopy 59 s" in out
    assert "Pages:             10 zero, 4 delta" in out
    assert "iteration" in out
    assert "Trouble" not in out


def test_show_says_why_one_ran_unaccelerated_and_what_to_do(
    call: Call, agent: Any, status: Make, migration: Make
) -> None:
    agent.status = status(migrations=[migration(state="passthrough", passthrough_reason="draining")])
    _, out, _ = call("show", "web1")
    shown = dict(line.split(": ", 1) for line in out.replace(":  ", ": ").splitlines() if ": " in line)
    assert shown["Unaccelerated"].strip() == "draining: the destination agent is draining"
    assert "uncordon" in shown["What to do"]


def test_show_says_what_was_amiss_with_a_migration_that_went_on(
    call: Call, agent: Any, status: Make, migration: Make
) -> None:
    event = schema.MigrationEvent(at=0.0, event="remark", detail="the hosts' clocks differ")
    agent.status = status(migrations=[migration(events=(event,))])
    _, out, _ = call("show", "web1")
    assert "Remarks" in out
    assert "the hosts' clocks differ" in out


@pytest.mark.parametrize("which", ["web1", "8f3c1d6e-0000-4000-8000-000000000001", "1f2e3d"])
def test_show_takes_domain_uuid_and_the_start_of_an_id(call: Call, which: str) -> None:
    assert json.loads(call("show", which, "--json")[1])["id"].startswith("1f2e3d4c")


def test_show_prefers_the_running_migration_of_a_domain(call: Call, agent: Any, status: Make) -> None:
    assert json.loads(call("show", "web1", "--json")[1])["state"] == "precopy"
    agent.status = status(migrations=[])
    assert json.loads(call("show", "web1", "--json")[1])["state"] == "ended"


def test_show_of_nothing_exits_3_and_says_where_to_look(call: Call) -> None:
    code, out, err = call("show", "nope")
    assert (code, out) == (3, "")
    assert (
        err == "error: no such migration: nope\nhint: dwcp-migrate status and dwcp-migrate history list what there is\n"
    )


def test_an_empty_name_is_a_variable_that_is_not_set(call: Call) -> None:
    code, _, err = call("show", "")
    assert code == 2
    assert "is a variable not set?" in err


def test_a_socket_without_permission_is_told_by_the_command_and_not_by_click(
    call: Call, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.access", lambda *_, **__: False)
    monkeypatch.setattr("socket.socket.connect", refuse)
    code, _, err = call("status", "--socket", str(agent.socket_path))
    assert code == 4
    assert err.startswith(f"error: no permission to use {agent.socket_path}\nhint: run it as root or as a member")


def test_top_without_a_terminal_prints_plain_blocks(call: Call) -> None:
    code, out, _ = call("top", "-n", "2", "-i", "0.2")
    assert code == 0
    assert out.count("hv1, running") == 2
    assert "\x1b" not in out


def test_record_needs_a_domain_or_next_and_a_directory(call: Call, agent: Any, tmp_path: Path) -> None:
    assert call("record")[0] == 2
    assert call("record", "web1", "--next", "--directory", str(tmp_path))[0] == 2
    assert call("record", "web1")[0] == 2
    assert call("record", "web1", "--directory", str(tmp_path))[0] == 0
    assert call("record", "--next", "--directory", str(tmp_path))[0] == 0
    assert call("record", "--cancel")[0] == 0
    assert agent.posted == [
        ("/v1/record", {"domain": "web1", "directory": str(tmp_path)}),
        ("/v1/record", {"domain": "", "directory": str(tmp_path)}),
        ("/v1/record", {}),
    ]


def test_cordon_waits_no_longer_than_it_is_told(call: Call, agent: Any, status: Make) -> None:
    code, _, err = call("cordon", "--wait", "--timeout", "0")
    assert code == 1
    assert "still under way after 0 s: web1" in err
    agent.status = status(migrations=[])
    assert call("cordon", "--wait", "--timeout", "0")[0] == 0
    assert call("uncordon")[0] == 0
    assert [path for path, _ in agent.posted] == ["/v1/drain", "/v1/drain", "/v1/undrain"]


def test_the_old_spelling_of_cordon_works_and_says_so(call: Call, agent: Any, status: Make) -> None:
    agent.status = status(migrations=[])
    code, _, err = call("drain", "--wait", "--timeout", "0")
    assert (code, "`drain` without a host is now `cordon`" in err) == (0, True)
    code, _, err = call("drain", "--off")
    assert (code, "is now `uncordon`" in err) == (0, True)
    assert [path for path, _ in agent.posted] == ["/v1/drain", "/v1/undrain"]


@pytest.mark.parametrize(
    "words", [("drain", ""), ("drain", " "), ("undrain", ""), ("migrate", "x", ""), ("migrate", "")]
)
def test_an_empty_shell_variable_drains_and_migrates_nothing(call: Call, agent: Any, words: tuple[str, ...]) -> None:
    code, _, err = call(*words)
    assert (code, "is a variable not set?" in err) == (2, True)
    assert agent.posted == []


def test_a_refused_reload_exits_2_with_the_agents_words(call: Call, agent: Any) -> None:
    agent.failure = (422, schema.Failure(error="configuration: $.link.port", hint="see docs/configuration.md"))
    assert call("reload")[::2] == (2, "error: configuration: $.link.port\nhint: see docs/configuration.md\n")


def test_no_agent_exits_4_and_says_how_to_find_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--socket", str(tmp_path / "none.sock")]) == 4
    err = capsys.readouterr().err
    assert "the agent does not answer" in err
    assert "systemctl status dwcp-migrate" in err


@pytest.mark.parametrize("garbage", [b"", b"[]", b'{"name": 3}', b"\xff\xfe", b"<html>"])
def test_garbage_on_the_control_socket_is_an_error_not_a_traceback(call: Call, agent: Any, garbage: bytes) -> None:
    agent.raw = garbage
    code, out, err = call("status")
    assert (code, out) == (4, "")
    assert "does not answer like an agent of this version" in err


def test_a_prefix_that_fits_two_is_the_operators_to_lengthen(call: Call, agent: Any) -> None:
    agent.failure = None
    original = agent.answer
    agent.answer = lambda method, target: (
        (409, b'{"error":"2 migrations begin with 1f"}') if "/migrations/" in target else original(method, target)
    )
    code, _, err = call("show", "1f")
    assert code == 3
    assert "error: 2 migrations begin with 1f" in err
