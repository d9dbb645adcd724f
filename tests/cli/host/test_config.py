from pathlib import Path

import pytest

from dwcp_migrate.cli import run
from dwcp_migrate.cli.host.config import as_toml, plain
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


def test_what_show_prints_reads_back_as_the_same_configuration() -> None:
    config = Config(
        name='odd "name"',
        peers=[
            PeerConfig(name="hv2", addresses=["10.0.0.2", "fd00::2"]),
            PeerConfig(name="hv3", addresses=["10.0.0.3"], port=1),
        ],
        link=LinkConfig(channels=32, loss_s_max=1.5),
        encoding=EncodingConfig(codec="zstd", level=3),
        coordination=CoordinationConfig(
            voters=("hv2", "hv3"),
            pbft=PbftConfig(
                cluster="ab" * 16, members=(PbftMemberConfig("hv2", "0f" * 32), PbftMemberConfig("hv3", "a1" * 32))
            ),
        ),
    )
    assert parse(as_toml(plain(config))) == config


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
