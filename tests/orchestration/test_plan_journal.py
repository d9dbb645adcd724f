"""The journal of a plan: one holder, what it refuses to read, its limit."""

from pathlib import Path

import pytest

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.orchestration import plan_journal as journals
from dwcp_migrate.orchestration.plan_journal import PlanJournal
from tests.orchestration.world import World


def test_one_process_holds_the_journal(world: World) -> None:
    plan = world.drain("hv1")
    with PlanJournal.begin(world.path, plan):
        with pytest.raises(PlacementError, match="has not ended"):
            PlanJournal.begin(world.path, plan)
        with pytest.raises(PlacementError, match="another process"):
            PlanJournal.resume(world.path)
    journal = PlanJournal.resume(world.path)
    assert journal is not None
    with journal:
        journal.end("abandoned")
    assert PlanJournal.resume(world.path) is None
    PlanJournal.begin(world.path, plan).close()


@pytest.mark.parametrize("text", ["", "nonsense\n", '{"step": 0, "state": "done"}\n', '{"ended": "completed"}\n'])
def test_what_is_no_journal_is_refused_or_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal"
    path.write_text(text)
    if text:
        with pytest.raises(PlacementError, match="journal"):
            journals.read(path)
    else:
        assert journals.read(path) is None
    assert journals.read(tmp_path / "absent") is None


def test_a_journal_that_speaks_of_a_step_it_does_not_have_is_refused(world: World) -> None:
    with PlanJournal.begin(world.path, world.drain("hv1")):
        pass
    with world.path.open("ab") as file:
        file.write(b'{"step": 99, "state": "done"}\n')
    with pytest.raises(PlacementError, match="step 99"):
        journals.read(world.path)


def test_the_journal_has_a_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with PlanJournal.begin(world.path, world.drain("hv1")):
        pass
    size = world.path.stat().st_size
    monkeypatch.setattr(journals, "JOURNAL_BYTES_MAX", size)
    assert journals.read(world.path)
    monkeypatch.setattr(journals, "JOURNAL_BYTES_MAX", size - 1)
    with pytest.raises(PlacementError, match="more than"):
        journals.read(world.path)
