import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.merge import command, merged
from dwcp_migrate.errors import ConfigError


def tally(first: int, migrations: int, *, seed: int = 11, **more: object) -> dict[str, object]:
    counts = {"migrations": migrations, "cuts": 2}
    return {"run": f"seed={seed} first={first}", "counts": counts, "times_s": [float(first)], **more}


def test_slices_of_one_run_add_up() -> None:
    total = merged([tally(0, 3, leaks={}, warm_bytes=5), tally(50, 2, leaks={"a": [1, 2]}, warm_bytes=4)])
    assert total["counts"] == {"migrations": 5, "cuts": 4}
    assert total["times_s"] == [0.0, 50.0]
    assert (total["leaks"], total["warm_bytes"], total["run"]) == ({"a": [1, 2]}, 5, "seed=11 first=0")


def test_a_migration_is_counted_once() -> None:
    with pytest.raises(ConfigError, match="migration 2 is in two"):
        merged([tally(0, 3), tally(2, 2)])


def test_slices_of_different_seeds_are_not_counted_together() -> None:
    with pytest.raises(ConfigError, match="different seeds"):
        merged([tally(0, 3), tally(3, 2, seed=12)])


def test_the_report_is_the_suites_own(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"{number}.tally").write_text(json.dumps(tally(number * 3, 3, leaks={})))
    done = CliRunner().invoke(command, ["restarts", str(tmp_path / "0.tally"), str(tmp_path / "1.tally")])
    report = json.loads(done.output)
    assert {row["metric"]: row["value"] for row in report["rows"]}["migrations"] == 6
    assert "2 slices" in report["command"]
