"""The fuzzers' short form: the corpus, and a few seconds of new inputs. `make fuzz SECONDS=60` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = 3


@pytest.mark.parametrize("name", TARGETS)
def test_the_saved_corpus_holds(name: str) -> None:
    files = sorted((Path(__file__).parent / "corpus" / name).iterdir())
    assert files
    for file in files:
        TARGETS[name](file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_seconds_of_fuzzing_find_nothing(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/fuzz/run.py"), name, str(SECONDS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "number_of_executed_units" in done.stderr
