"""What sessions occupy against what they were granted: real data processes, made-up streams."""

import contextlib
import hashlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.agent.tracking.memory_budget import MemoryBudget
from dwcp_migrate.errors import NoMemoryError
from dwcp_migrate.protocol.control import Open
from dwcp_migrate.protocol.session_memory import SessionMemory, agree_on_sizes
from dwcp_migrate.units import GIB, MIB
from tests.dataplane.pair import Pair, pair
from tests.dataplane.streams import precopy

GUEST_BYTES = 4 * GIB
PAGES = 2048
CONNECTIONS = 3
LOOK_S = 0.1


def private_bytes(pid: int) -> int:
    """Memory that a process does not share with others; 0 of one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(found) * 1024 for found in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", text, re.MULTILINE))


class Budgets:
    """The budgets of two hosts that have `bytes_max` each for their sessions."""

    def __init__(self, bytes_max: int, sessions_max: int) -> None:
        self.source = MemoryBudget(lambda: bytes_max, lambda: sessions_max, lambda: 100 * bytes_max)
        self.destination = MemoryBudget(lambda: bytes_max, lambda: sessions_max, lambda: 100 * bytes_max)

    def agreed(self, identity: str) -> tuple[SessionMemory, SessionMemory]:
        """What both agents come to, as they do."""
        ours = self.source.for_source(identity, GIB, GUEST_BYTES)
        asked = Open(
            versions=(1,),
            session_id=bytes(16),
            token=bytes(32),
            address="192.0.2.1",
            port=49152,
            cache_bytes=ours.cache_bytes,
            window_bytes=ours.window_bytes,
            channels_max=64,
        )
        theirs = self.destination.for_destination(identity, asked, GIB)
        return self.source.agree(identity, ours, theirs.cache_bytes, theirs.window_bytes), theirs


class Carried:
    """One migration under way, and the most that its two data processes have occupied beyond idle ones."""

    def __init__(self, made: Pair, granted: tuple[int, int]) -> None:
        self.pids = made.source.process.pid, made.destination.process.pid
        self.granted = granted
        self.idle = tuple(map(private_bytes, self.pids))
        self.most = [0, 0]
        self.made = made
        self.arrived: list[str] = []
        self._threads: list[threading.Thread] = []

    def begin(self, stream: bytes) -> None:
        """Send the stream down several connections at once, as multifd does."""
        for _ in range(CONNECTIONS):
            ours, theirs = self.made.connect()
            for run, end in ((self._send, ours), (self._receive, theirs)):
                self._threads.append(threading.Thread(target=run, args=(end, stream)))
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _send(end: socket.socket, stream: bytes) -> None:
        end.sendall(stream)
        end.shutdown(socket.SHUT_WR)

    def _receive(self, end: socket.socket, stream: bytes) -> None:
        del stream
        digest = hashlib.sha256()
        while data := end.recv(MIB):
            digest.update(data)
        self.arrived.append(digest.hexdigest())

    def look(self) -> bool:
        """Measure; whether it still runs."""
        for side, pid in enumerate(self.pids):
            self.most[side] = max(self.most[side], private_bytes(pid) - self.idle[side])
        return any(thread.is_alive() for thread in self._threads)


@contextlib.contextmanager
def bystander() -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the place of a guest: 256 MiB that it has written."""
    kept = "import sys; kept = bytearray(b'x') * (256 << 20); print(flush=True)"
    program = f"{kept}; sys.stdin.read(); print(sum(kept[::4096]))"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guest:
        assert guest.stdout is not None
        guest.stdout.readline()
        yield guest


def carry(directory: Path, count: int, budgets: Budgets) -> list[Carried]:
    """Carry `count` migrations at once to their end."""
    stream = b"".join(precopy(7, PAGES))
    found = []
    with contextlib.ExitStack() as stack:
        for number in range(count):
            ours, theirs = budgets.agreed(str(number))
            where = directory / str(number)
            where.mkdir()
            made = stack.enter_context(pair(where, memory=ours, channels=2))
            found.append(Carried(made, (ours.granted_bytes, theirs.granted_bytes)))
        for one in found:
            one.begin(stream)
        while sum(one.look() for one in found):  # of every one, each time
            time.sleep(LOOK_S)
    assert all(one.arrived == [hashlib.sha256(stream).hexdigest()] * CONNECTIONS for one in found)
    return found


def judge(found: list[Carried], bytes_max: int) -> None:
    for side in (0, 1):
        assert all(one.most[side] <= one.granted[side] for one in found), [(one.most, one.granted) for one in found]
        assert sum(one.granted[side] for one in found) <= bytes_max


def test_a_few_sessions_keep_to_what_they_were_granted_and_the_next_gets_nothing(tmp_path: Path) -> None:
    budgets = Budgets(64 * MIB, 2)
    judge(carry(tmp_path, 2, budgets), 64 * MIB)
    with pytest.raises(NoMemoryError):
        budgets.agreed("2")


@pytest.mark.long
def test_64_sessions_at_once_keep_to_2_gib_and_leave_the_guests_alone(tmp_path: Path) -> None:
    budgets = Budgets(2 * GIB, 64)
    with bystander() as guest:
        found = carry(tmp_path, 64, budgets)
        status = Path(f"/proc/{guest.pid}/status").read_text()
        assert re.search(r"^VmSwap:\s+0 kB", status, re.MULTILINE)
        out, _ = guest.communicate(timeout=60)
        assert int(out) == 65536 * ord("x")
    judge(found, 2 * GIB)
    with pytest.raises(NoMemoryError):
        budgets.agreed("64")


def test_a_source_with_a_table_for_a_part_of_the_guest_carries_all_of_it(tmp_path: Path) -> None:
    memory = SessionMemory(granted_bytes=32 * MIB, cache_bytes=MIB, window_bytes=MIB, table_bytes=1)
    memory = agree_on_sizes(memory, MIB, MIB)
    assert msgspec.structs.replace(memory, table_bytes=1) == memory
    stream = b"".join(precopy(3, 1024))
    with pair(tmp_path, memory=memory) as made:
        one = Carried(made, (0, 0))
        one.begin(stream)
        while one.look():
            time.sleep(LOOK_S)
    assert one.arrived == [hashlib.sha256(stream).hexdigest()] * CONNECTIONS
