"""Every broken file is refused with file, line, key, value and remedy, by the check that the agent uses too."""

from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.cli import run
from dwcp_migrate.config import load
from dwcp_migrate.errors import ConfigError
from tests.config.broken import FILES, Broken


def test_there_are_sixty_broken_files_of_twenty_kinds() -> None:
    assert len({broken.text for broken in FILES}) >= 60
    assert len({broken.kind for broken in FILES}) >= 20


@pytest.mark.parametrize("broken", FILES, ids=lambda broken: f"{broken.kind}-{broken.key}")
def test_a_broken_file_is_refused_with_file_line_key_and_remedy(broken: Broken, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(broken.text)
    with pytest.raises(ConfigError) as refused:
        load(file)
    error = refused.value
    assert str(error).startswith(f"{file}:{broken.line}: {broken.key}"), str(error)
    assert [(fault.key, fault.line) for fault in error.faults] == [(broken.key, broken.line)]
    assert broken.remedy in error.hint


def test_all_faults_of_types_are_told_at_once_each_on_a_line_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('log_level = "loud"\n\n[link]\nchanels = 3\nport = "x"\n\n[[peers]]\nname = "hv2"\n')
    assert run(["config", "check", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {file}: 4 keys are wrong"
    assert [line.split()[0] for line in lines[1:5]] == [f"{file}:{line}:" for line in (1, 4, 5, 7)]
    assert "did you mean link.channels?" in lines[2]


def test_check_tells_its_faults_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[link]\nchanels = 3\n")
    assert run(["config", "check", str(file), "--json"]) == 2
    told = msgspec.json.decode(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["faults"] == [
        {
            "key": "link.chanels",
            "value": "3",
            "why": "there is no such key",
            "hint": "did you mean link.channels?",
            "line": 2,
        }
    ]


def test_what_is_no_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(b"# fine\nname = '\xff'\n")
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert str(refused.value).startswith(f"{file}:2: the file")
    assert refused.value.hint == "save it as UTF-8"


def test_a_file_past_the_limit_is_refused_and_one_at_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwcp_migrate.config.reading.FILE_BYTES_MAX", 20)
    file = tmp_path / "agent.toml"
    file.write_text(f'name = "{"h" * 11}"')
    assert load(file).name == "h" * 11
    file.write_text(f'name = "{"h" * 12}"')
    with pytest.raises(ConfigError, match="larger than"):
        load(file)
