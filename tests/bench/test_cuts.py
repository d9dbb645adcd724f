from pathlib import Path

import msgspec

from bench.frame import Options
from bench.suites.cuts.run import KEEPALIVES, PHASES, SECONDS, WAYS, Cell, CutOutcome, CutRun, _rows, cells


def test_every_phase_is_cut_for_every_length_each_way_with_keepalive_and_without() -> None:
    every = cells(Options())
    assert len({cell.case for cell in every}) == len(WAYS) * len(KEEPALIVES) * len(PHASES) * len(SECONDS)
    assert {cell.way for cell in cells(Options(only="p2p"))} == {"p2p"}
    assert {cell.seconds for cell in cells(Options(quick=True))} == {SECONDS[0]}


def test_a_slice_brings_up_no_lab_for_what_is_done(tmp_path: Path) -> None:
    kept = tmp_path / "cuts.tally"
    done = {cell.case: CutOutcome(True, True, 40.0) for cell in cells(Options()) if cell.keepalive == "shipped"}
    kept.write_bytes(msgspec.json.encode(done))
    run = CutRun(Options(tally=str(kept)))
    assert {kind for _, kind in run.labs()} == {"off"}
    assert run.done == done


def test_what_was_not_played_has_no_row() -> None:
    cell = Cell("plain", "off", "switchover", 45)
    found = _rows(cells(Options()), {cell.case: CutOutcome(False, True, 101.5, "error: lost")})
    assert [(row.case, row.metric, row.value) for row in found] == [
        ("plain, keepalive off, switchover, 45 s", "completed", 0.0),
        ("plain, keepalive off, switchover, 45 s", "guest whole", 1.0),
        ("plain, keepalive off, switchover, 45 s", "time", 101.5),
    ]
