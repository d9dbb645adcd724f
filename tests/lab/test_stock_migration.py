"""Stock migrations in the lab: the ground that the accelerated ones stand on, and the guest's check itself."""

import time

import libvirt
import pytest

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.arms import completed_job
from dwcp_migrate.lab.fixtures import StartGuest
from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab

pytestmark = pytest.mark.lab

SMALL = GuestOptions(memory_mib=128, fill_mib=32)


def test_a_guest_goes_there_over_tcp_and_back_over_ssh_with_its_memory_intact(
    lab: Lab, start_guest: StartGuest
) -> None:
    guest = start_guest(SMALL)
    hv1, hv2 = lab.hypervisors
    assert guest.running_on(hv1, hv2) == ["hv1"]
    hv1.virsh("migrate", "--live", guest.name, "qemu+tcp://hv2/system")
    assert guest.running_on(hv1, hv2) == ["hv2"]
    assert guest.wait_healthy(hv2).errors == 0
    job = completed_job(hv2, guest.name)
    assert job["memory_total"] > 128 << 20
    assert 0 <= job["downtime"] < 5000
    hv2.virsh("migrate", "--live", guest.name, "qemu+ssh://hv1/system")
    assert guest.running_on(hv1, hv2) == ["hv1"]
    guest.wait_healthy(hv1)


def test_a_guest_with_a_disk_goes_with_its_storage(lab: Lab, start_guest: StartGuest) -> None:
    guest = start_guest(GuestOptions(memory_mib=128, fill_mib=32, disk_mib=16))
    hv1, hv2 = lab.hypervisors
    guest.make_disk(hv2)
    hv1.virsh("migrate", "--live", "--copy-storage-all", guest.name, "qemu+tcp://hv2/system")
    assert guest.running_on(hv1, hv2) == ["hv2"]
    guest.wait_healthy(hv2)


def test_multifd_with_zstd_is_there_to_compare_with(lab: Lab, start_guest: StartGuest) -> None:
    guest = start_guest(SMALL)
    hv1, hv2 = lab.hypervisors
    flags = ("--parallel", "--parallel-connections", "2", "--compressed", "--comp-methods", "zstd")
    hv1.virsh("migrate", "--live", *flags, guest.name, "qemu+tcp://hv2/system")
    guest.wait_healthy(hv2)


def test_a_single_flipped_byte_of_the_guests_memory_is_found(lab: Lab, start_guest: StartGuest) -> None:
    guest = start_guest(GuestOptions(memory_mib=128, fill_mib=48, dirty_pages_per_s=0))
    hv1 = lab["hv1"]
    assert guest.wait_healthy(hv1).errors == 0
    flip_bytes(hv1, guest)
    with pytest.raises(LabError, match="wrong slots"):
        guest.wait_healthy(hv1)


def flip_bytes(host: Hypervisor, guest: LabGuest) -> None:
    """Flip one byte of a page of random content, in the memory of the QEMU that runs the guest."""
    script = """
import re, sys
pid, size = int(sys.argv[1]), int(sys.argv[2])
maps = [line.split() for line in open(f"/proc/{pid}/maps")]
spans = [tuple(int(part, 16) for part in line[0].split("-")) for line in maps if line[1].startswith("rw")]
begin = next(begin for begin, end in spans if end - begin >= size)
with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
    for page in range(size // 4096 - 1, 0, -1):
        memory.seek(begin + page * 4096)
        data = memory.read(4096)
        if len(set(data)) > 240:  # random content: no code, no text
            memory.seek(begin + page * 4096 + 1000)
            memory.write(bytes([data[1000] ^ 1]))
            break
    else:
        sys.exit("no page of random content")
"""
    pid = host.run(["pidof", "qemu-system-x86_64"]).stdout.strip()
    host.run(["python3", "-c", script, pid, str(guest.options.memory_mib << 20)])


def test_libvirt_answers_programs_of_the_machine(lab: Lab) -> None:
    for host in lab.hypervisors:
        connection = libvirt.open(host.libvirt_uri)
        assert connection.getHostname() == host.name
        connection.close()


def test_hosts_have_their_own_identity(lab: Lab) -> None:
    uuids = {host.virsh("capabilities").stdout.partition("<uuid>")[2][:36] for host in lab.hypervisors}
    assert len(uuids) == len(lab.hypervisors)


def test_a_command_that_hangs_is_ended_inside_too(lab: Lab) -> None:
    begin = time.monotonic()
    with pytest.raises(LabError, match="failed with 124"):
        lab["hv1"].run(["sleep", "77"], timeout_s=0.5)
    assert time.monotonic() - begin < 30
    assert lab["hv1"].run(["pgrep", "-fx", "sleep 77"], check=False).stdout == ""
