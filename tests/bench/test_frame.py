"""The benchmark command: one object with the machine, commit and command beside the rows."""

import json
from pathlib import Path

import pytest

from bench import frame
from bench.suites import amst
from dwcp_migrate.cli import run
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.units import KIB, MIB


def test_an_unknown_suite_is_named_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        frame.run("nothing", frame.Options(), "x")
    assert run(["bench", "nothing"]) == NotFoundError.exit_code
    assert "amst" in capsys.readouterr().err


def test_a_report_is_one_object_with_exactly_the_documented_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = frame.Row(case="a", metric="throughput", value=1.5, unit="MB/s", n=3, method="by hand")
    monkeypatch.setattr(amst, "rows", lambda _: [row])
    assert run(["bench", "amst", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["machine", "commit", "command", "rows"]
    assert report["command"] == "python -m bench amst --json"
    assert report["rows"] == [
        {"case": "a", "metric": "throughput", "value": 1.5, "unit": "MB/s", "n": 3, "method": "by hand"}
    ]
    assert run(["bench", "amst"]) == 0
    assert "throughput" in capsys.readouterr().out


def test_the_machine_and_the_commit_are_known() -> None:
    assert "cores, Linux" in frame.machine()
    assert frame.commit()


def test_a_transfer_between_two_processes_is_measured(tmp_path: Path) -> None:
    create_authority(tmp_path)
    issue(tmp_path, "source.bench")
    issue(tmp_path, "destination.bench")
    carried = amst._carry(tmp_path, 2, 64 * KIB, 4 * MIB)
    assert carried.seconds > 0
    assert carried.cpu_s > 0
    assert 0 < carried.first_s <= carried.setup_s


@pytest.mark.parametrize("way", ["splice", "buffer"])
def test_both_ways_of_passing_through_carry_all_bytes(way: str) -> None:
    seconds, cpu_s = amst._pass_through(way, 64 * KIB, 4 * MIB)
    assert seconds > 0
    assert cpu_s > 0
