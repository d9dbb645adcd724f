import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.cli import run
from dwcp_migrate.cli.host.config import as_toml
from dwcp_migrate.config import (
    Config,
    CoordinationConfig,
    EncodingConfig,
    LinkConfig,
    PbftConfig,
    PbftMemberConfig,
    PeerConfig,
    parse,
)
from dwcp_migrate.config.compare import as_builtins
from tests.cli.conftest import FakeAgent

Call = Callable[..., tuple[int, str, str]]


def test_what_show_prints_reads_back_as_the_same_configuration() -> None:
    config = Config(
        name="hv1.example.net",
        peers=[
            PeerConfig(name="hv2", addresses=["10.0.0.2", "fd00::2"]),
            PeerConfig(name="hv3", addresses=["10.0.0.3"], port=1),
        ],
        link=LinkConfig(channels=32, loss_s_max=1.5),
        encoding=EncodingConfig(codec="zstd", level=3),
        coordination=CoordinationConfig(
            voters=("hv2", "hv3"),
            labels={"rack id": 'odd "name"', "dc.zone": "a"},
            pbft=PbftConfig(
                cluster="ab" * 16, members=(PbftMemberConfig("hv2", "0f" * 32), PbftMemberConfig("hv3", "a1" * 32))
            ),
        ),
    )
    assert parse(as_toml(as_builtins(config))) == config


def test_check_accepts_a_good_file_and_names_the_key_of_a_bad_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('[[peers]]\nname = "hv2"\naddresses = ["10.0.0.2"]\n')
    assert run(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ok, 1 peer\n"
    file.write_text("[link]\nchanels = 3\n")
    assert run(["config", "check", str(file)]) == 2
    assert "chanels" in capsys.readouterr().err


def test_check_of_no_file_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_show_of_the_defaults_reads_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--defaults"]) == 0
    assert parse(capsys.readouterr().out) == Config()


def test_check_takes_several_files_and_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("")
    bad.write_text("x = 1\n")
    monkeypatch.setattr("sys.stdin", io.StringIO('[encoding]\ncache_bytes = "1GiB"\n'))
    assert run(["config", "check", str(good), str(bad), "-"]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{good}: ok, 0 peers", "-: ok, 0 peers"]
    assert f"{bad}:1: x = 1: there is no such key" in err


def running(agent: FakeAgent, config: Config) -> None:
    status = schema.ConfigurationStatus(path="/etc/dwcp-migrate/agent.toml", read_at=1.0)
    agent.more["/v1/config"] = schema.RunningConfig(status=status, values=as_builtins(config))


def test_diff_tells_what_a_reload_and_what_a_restart_would_change(agent: FakeAgent, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('log_level = "debug"\n[link]\nport = 7900\n[[peers]]\nname = "hv2"\naddresses = ["192.0.2.2"]\n')
    running(agent, Config())
    code, out, _ = call("config", "diff", "--json", "--config", str(file))
    assert code == 1
    changes = {row["key"]: row for row in json.loads(out)["changes"]}
    assert changes["link.port"] == {"key": "link.port", "running": 7802, "file": 7900, "takes": "restart"}
    assert changes["log_level"]["takes"] == "reload"
    assert changes["peers[0].name"]["file"] == "hv2"
    code, out, _ = call("config", "diff", "--config", str(file))
    assert "link.port" in out
    assert "restart" in out


def test_diff_of_what_runs_exits_0(agent: FakeAgent, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("")
    running(agent, Config())
    assert call("config", "diff", "--config", str(file))[:2] == (0, "the agent runs what the file says\n")


def test_diff_with_an_agent_of_another_release_says_so(agent: FakeAgent, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("")
    status = schema.ConfigurationStatus()
    agent.more["/v1/config"] = schema.RunningConfig(status=status, values={"new_key": 1})
    code, _, err = call("config", "diff", "--config", str(file))
    assert code == 2
    assert "another release" in err
