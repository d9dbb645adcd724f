"""What a lab leaves behind: nothing, whatever happens to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dwcp_migrate.errors import LabError, NotFoundError
from dwcp_migrate.lab import lab as labs
from dwcp_migrate.lab import state
from dwcp_migrate.lab.hosts.processes import marked_processes
from dwcp_migrate.lab.lab import Lab, LabOptions

pytestmark = pytest.mark.lab

OWNER = """
import os, signal, sys
from dwcp_migrate.lab.lab import Lab, LabOptions
lab = Lab.up(LabOptions(name=sys.argv[1], owned=True))
print(lab.record.lab_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def unique(name: str) -> str:
    return f"{name}-{os.getpid()}"


def outside() -> tuple[str, str]:
    """What a lab must not change: the machine's own links, addresses and rules, and its mounts."""
    links = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
    return links, Path("/proc/self/mountinfo").read_text()


def test_up_and_down_leave_no_process_directory_or_change_outside() -> None:
    before = outside()
    with Lab.up(LabOptions(name=unique("clean"))) as lab:
        assert state.condition(lab.record) == "up"
        assert outside() == before
        lab_id = lab.record.lab_id
        assert marked_processes(lab_id)
    assert not marked_processes(lab_id)
    assert not any(host.is_alive() for host in lab.hypervisors)
    assert not lab.directory.exists()
    assert outside() == before


def test_labs_with_different_names_run_side_by_side() -> None:
    with Lab.up(LabOptions(name=unique("one"))) as one, Lab.up(LabOptions(name=unique("two"), hosts=3)) as two:
        assert len(two.hypervisors) == 3
        for lab in (one, two):
            assert lab["hv1"].virsh("-c", "qemu+tcp://hv2/system", "hostname").stdout.strip() == "hv2"


def test_a_second_lab_of_the_same_name_is_refused() -> None:
    with Lab.up(LabOptions(name=unique("same"))) as lab:
        with pytest.raises(LabError, match="up already"):
            Lab.up(LabOptions(name=lab.name))
        assert state.condition(state.read(lab.name)) == "up"


def test_a_lab_that_lost_a_host_is_damaged_and_cleared_by_the_next_up() -> None:
    lab = Lab.up(LabOptions(name=unique("lost")))
    lab["hv2"].namespace.holder.end(grace_s=0)
    assert state.condition(lab.record) == "damaged"
    with pytest.raises(LabError, match="damaged"):
        Lab.load(lab.name)
    with Lab.up(LabOptions(name=lab.name)) as again:
        assert state.condition(again.record) == "up"
        assert not marked_processes(lab.record.lab_id)


def test_a_lab_whose_owner_was_killed_is_cleared_by_whoever_comes_next() -> None:
    name = unique("orphan")
    with subprocess.Popen([sys.executable, "-c", OWNER, name], stdout=subprocess.PIPE, text=True) as owner:
        lab_id = owner.communicate()[0].strip()
    assert marked_processes(lab_id)
    assert name in labs.clear_abandoned()
    assert not marked_processes(lab_id)
    assert name not in state.names()


def test_a_lab_that_fails_to_come_up_is_cleared_at_once() -> None:
    name = unique("fails")
    with pytest.raises(LabError, match="nosuchcc"):
        Lab.up(LabOptions(name=name, congestion_control="nosuchcc"))
    assert name not in state.names()


def test_a_lab_is_found_again_by_its_name_and_down_twice_is_an_error() -> None:
    lab = Lab.up(LabOptions(name=unique("found")))
    assert Lab.load(lab.name)["hv1"].run(["hostname"]).stdout == "hv1\n"
    lab.down()
    with pytest.raises(NotFoundError):
        labs.down(lab.name)
    with pytest.raises(NotFoundError):
        Lab.load(lab.name)


@pytest.mark.parametrize("hosts", [0, labs.HOSTS_MAX + 1])
def test_a_count_of_hosts_out_of_bounds_is_refused(hosts: int) -> None:
    with pytest.raises(LabError, match="1 to 16"):
        Lab.up(LabOptions(name=unique("many"), hosts=hosts))


def test_as_many_hosts_as_allowed_come_up() -> None:
    with Lab.up(LabOptions(name=unique("most"), hosts=labs.HOSTS_MAX)) as lab:
        assert lab["hv16"].virsh("-c", "qemu+tcp://hv1/system", "hostname").stdout.strip() == "hv1"
