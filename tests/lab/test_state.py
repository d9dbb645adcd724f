import os
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.errors import LabError, NotFoundError
from dwcp_migrate.lab import state
from dwcp_migrate.lab.hosts.processes import ProcessId, identify_process, launch
from dwcp_migrate.lab.state import HostRecord, LabRecord
from dwcp_migrate.lab.wan import WanLink

GONE = ProcessId(pid=2**22 - 1, start_ticks=1)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWCP_LAB_STATE", str(tmp_path))


def make_record(**changes: object) -> LabRecord:
    here = identify_process(os.getpid())
    record = LabRecord("one", "id-one", WanLink(), 1, hosts=[HostRecord("hv1", "10.77.0.1", here)], wan=here)
    return msgspec.structs.replace(record, **changes)


def test_a_record_is_read_back_as_written() -> None:
    record = make_record(owner=GONE, agents={"hv1": GONE})
    state.write(record)
    assert state.read("one") == record
    assert state.names() == ["one"]


def test_a_lab_is_up_only_with_all_holders_and_its_wan() -> None:
    assert state.condition(make_record()) == "up"
    assert state.condition(make_record(wan=None)) == "damaged"
    assert state.condition(make_record(wan=GONE)) == "damaged"
    assert state.condition(make_record(hosts=[HostRecord("hv1", "10.77.0.1", GONE)])) == "damaged"


def test_a_lab_whose_owner_died_is_abandoned() -> None:
    assert state.condition(make_record(owner=identify_process(os.getpid()))) == "up"
    assert state.condition(make_record(owner=GONE)) == "abandoned"


@pytest.mark.parametrize("name", ["", "../x", "Lab", "1st", "a" * 25, "a b"])
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot name a lab"):
        state.directory(name)


def test_the_longest_name_is_taken() -> None:
    assert state.directory("a" * 24).name == "a" * 24


def test_a_missing_and_an_unreadable_record_are_told_apart() -> None:
    with pytest.raises(NotFoundError):
        state.read("one")
    state.write(make_record())
    (state.directory("one") / state.RECORD).write_text("{")
    with pytest.raises(LabError, match=r"lab\.json") as caught:
        state.read("one")
    assert "lab down --name one" in caught.value.hint


def test_clearing_ends_recorded_and_marked_processes_and_removes_the_directory(tmp_path: Path) -> None:
    log = tmp_path / "log"
    recorded = launch(["sleep", "60"], log=log, lab_id="other")
    unrecorded = launch(["sleep", "60"], log=log, lab_id="id-one")
    state.write(make_record(hosts=[HostRecord("hv1", "10.77.0.1", recorded)], wan=None))
    state.clear("one")
    assert not recorded.is_alive()
    assert not unrecorded.is_alive()
    assert not state.directory("one").exists()


def test_the_wreck_of_a_lab_without_a_record_is_cleared() -> None:
    (state.directory("one") / "hv1").mkdir(parents=True)
    state.clear("one")
    assert state.names() == []
