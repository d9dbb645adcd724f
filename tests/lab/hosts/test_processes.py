import os
import signal
import subprocess
import uuid
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.hosts.processes import ProcessId, identify_process, launch, launch_announced, marked_processes


def test_a_started_program_is_known_by_pid_and_start_time_and_ends_when_asked(tmp_path: Path) -> None:
    process = launch(["sleep", "60"], log=tmp_path / "log", lab_id="x")
    assert process.is_alive()
    process.end()
    assert not process.is_alive()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process, line = launch_announced(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], log=tmp_path / "log", lab_id="x"
    )
    assert line == "ready"
    process.end(grace_s=0.2)
    assert not process.is_alive()


def test_a_reused_pid_is_never_signalled() -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        ours = msgspec.structs.replace(identify_process(stranger.pid), start_ticks=1)
        assert not ours.is_alive()
        ours.end(grace_s=0)
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_that_is_only_a_zombie_counts_as_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = identify_process(child.pid)
        process.end(grace_s=0)
        assert not process.is_alive()
        with pytest.raises(LabError, match="ended at once"):
            identify_process(child.pid)


def test_ending_what_is_long_gone_is_no_error() -> None:
    with subprocess.Popen(["true"]) as child:
        pid = child.pid
    ProcessId(pid, 1).end()


def test_all_descendants_of_a_lab_are_found_by_its_mark(tmp_path: Path) -> None:
    lab_id = uuid.uuid4().hex
    parent, line = launch_announced(["sh", "-c", "sleep 60 & echo $!; wait"], log=tmp_path / "log", lab_id=lab_id)
    child = int(line)
    os.kill(parent.pid, signal.SIGKILL)  # the child is an orphan now, recorded nowhere
    found = marked_processes(lab_id)
    assert child in [process.pid for process in found]
    for process in found:
        process.end(grace_s=0)
    assert not marked_processes(lab_id)


def test_a_process_is_found_while_it_replaces_its_program(tmp_path: Path) -> None:
    lab_id = uuid.uuid4().hex
    restless = tmp_path / "restless"
    restless.write_text('#!/bin/sh\nexec "$0"\n')
    restless.chmod(0o755)
    process, _ = launch_announced(["sh", "-c", f"echo ready; exec {restless}"], log=tmp_path / "log", lab_id=lab_id)
    looks = [marked_processes(lab_id) for _ in range(200)]
    process.end(grace_s=0)
    assert all(process in found for found in looks)


def test_a_program_that_fails_at_once_says_why_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no such thing"):
        launch_announced(["sh", "-c", "echo no such thing >&2"], log=tmp_path / "log", lab_id="x")
