"""Each file in `scenarios/` is a story that must end as it says; its language: `simulation/script.py`."""

from pathlib import Path

import pytest

from tests.consensus.simulation.script import Script

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_ends_as_its_text_says(path: Path) -> None:
    Script(path.read_text()).run()


def test_a_scenario_that_does_not_hold_names_its_line() -> None:
    with pytest.raises(AssertionError, match="line 3, `expect decided c0 2`"):
        Script("replicas 4\nask c0 1\nexpect decided c0 2").run()
