"""Reading a guest's memory: what both ways to it promise, what is refused before it is asked, and libvirt's errors."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from dwcp_migrate.errors import GuestMemoryError
from dwcp_migrate.hypervisor.memory import libvirt_peek
from dwcp_migrate.hypervisor.memory.address_map import MemoryRange
from dwcp_migrate.hypervisor.memory.base import READ_BYTES_MAX, GuestMemory
from dwcp_migrate.hypervisor.memory.fake import HOLE
from dwcp_migrate.hypervisor.memory.opening import open_memory
from dwcp_migrate.units import MIB, PAGE_BYTES

UUID = "0123abcd-0000-1111-2222-333344445555"
MAP = """FlatView #0
 AS "memory", root: system
 Root memory region: system
  0000000000000000-00000000002fffff (prio 0, ram): pc.ram
  0000000000300000-00000000003fffff (prio 0, i/o): registers
  0000000000400000-00000000007fffff (prio 0, ram): pc.ram @0000000000300000
"""


class StubDomain:
    """A domain whose memory is given; it counts what was asked of it."""

    def __init__(self, content: bytes, description: str = "<domain/>") -> None:
        self.content, self.description = content, description
        self.asked: list[tuple[int, int, int]] = []
        self.gone = False

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's name
        assert flags == 0
        return self.description

    def memoryPeek(self, begin: int, size: int, flags: int) -> bytes:  # noqa: N802 - libvirt's name
        if self.gone:
            raise libvirt.libvirtError("domain is not running")
        self.asked.append((begin, size, flags))
        return self.content[begin : begin + size]


def connect_to(monkeypatch: pytest.MonkeyPatch, domain: StubDomain, answer: str = MAP) -> list[str]:
    """Have libvirt find that domain; returns what happens to the connection."""
    said: list[str] = []

    def look(uuid: str) -> StubDomain:
        if uuid != UUID:
            raise libvirt.libvirtError("Domain not found")
        return domain

    connection = SimpleNamespace(
        lookupByUUIDString=look, close=lambda: said.append("closed"), setKeepAlive=lambda *_: None
    )

    def command(asked: Any, text: str, flags: int) -> str:
        assert (asked, flags) == (domain, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
        said.append(text)
        return answer

    monkeypatch.setattr(libvirt_peek, "open_connection", lambda _: connection)
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", command)
    return said


def file_of(directory: Path, content: bytes) -> GuestMemory:
    (directory / UUID).write_bytes(content)
    return open_memory(f"file:{directory}", UUID)


@pytest.fixture(params=["file", "libvirt"])
def content_and_memory(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[bytes, GuestMemory]:
    content = os.urandom(8 * MIB)
    if request.param == "file":
        return content, file_of(tmp_path, content)
    connect_to(monkeypatch, StubDomain(content))
    return content, open_memory("qemu:///system", UUID)


def test_every_byte_of_plain_memory_is_read_as_it_is(content_and_memory: tuple[bytes, GuestMemory]) -> None:
    content, memory = content_and_memory
    assert memory.ranges[-1] == MemoryRange(4 * MIB, 8 * MIB)
    assert memory.ranges[0].end == HOLE.begin
    for each in memory.ranges:
        for begin in range(each.begin, each.end, READ_BYTES_MAX):
            assert memory.read(begin, READ_BYTES_MAX) == content[begin : begin + READ_BYTES_MAX]
    memory.close()


@pytest.mark.parametrize(
    ("begin", "size"),
    [
        (3 * MIB, PAGE_BYTES),  # registers
        (3 * MIB - PAGE_BYTES, 2 * PAGE_BYTES),  # reaches into them
        (4 * MIB - PAGE_BYTES, PAGE_BYTES),
        (8 * MIB, PAGE_BYTES),  # behind the end
        (4 * MIB, READ_BYTES_MAX + PAGE_BYTES),
        (4 * MIB, 0),
        (4 * MIB, 100),
        (4 * MIB + 8, PAGE_BYTES),
    ],
)
def test_what_is_no_plain_memory_is_not_even_asked_for(monkeypatch: pytest.MonkeyPatch, begin: int, size: int) -> None:
    domain = StubDomain(bytes(8 * MIB))
    connect_to(monkeypatch, domain)
    with pytest.raises(GuestMemoryError, match="not to be read"):
        open_memory("qemu:///system", UUID).read(begin, size)
    assert domain.asked == []


def test_physical_addresses_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = StubDomain(bytes(8 * MIB))
    said = connect_to(monkeypatch, domain)
    memory = open_memory("qemu:///system", UUID)
    memory.read(5 * MIB, PAGE_BYTES)
    memory.close()
    assert domain.asked == [(5 * MIB, PAGE_BYTES, libvirt.VIR_MEMORY_PHYSICAL)]
    assert said == ["info mtree -f", "closed"]


def test_a_guest_that_ends_meanwhile_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    domain = StubDomain(bytes(8 * MIB))
    connect_to(monkeypatch, domain)
    memory = open_memory("qemu:///system", UUID)
    domain.gone = True
    with pytest.raises(GuestMemoryError, match="not running"):
        memory.read(4 * MIB, PAGE_BYTES)
    shrunk = file_of(tmp_path, bytes(2 * MIB))
    os.truncate(tmp_path / UUID, MIB)
    with pytest.raises(GuestMemoryError, match="came 0"):
        shrunk.read(MIB, PAGE_BYTES)


def test_a_guest_whose_memory_is_encrypted_is_refused_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    said = connect_to(monkeypatch, StubDomain(b"", "<domain><launchSecurity type='sev'/></domain>"))
    with pytest.raises(GuestMemoryError, match="encrypted"):
        open_memory("qemu:///system", UUID)
    assert said == ["closed"]


def test_an_unknown_guest_and_an_unknown_map_close_the_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = connect_to(monkeypatch, StubDomain(b""), "unknown command: 'info mtree'")
    for uuid, words in ((UUID, "0 views"), ("another", "not found")):
        with pytest.raises(GuestMemoryError, match=words):
            open_memory("qemu:///system", uuid)
        assert said.pop() == "closed"
    with pytest.raises(GuestMemoryError, match="No such file"):
        open_memory(f"file:{tmp_path}", "another")


def test_a_libvirtd_that_is_not_there_is_said() -> None:
    with pytest.raises(GuestMemoryError, match="no connection") as refused:
        open_memory("qemu+unix:///system?socket=/nowhere/libvirt-sock", UUID)
    assert refused.value.hint
