"""Two data processes carry QEMU's connections byte for byte, whatever happens to the channels between them."""

import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dwcp_migrate.protocol.worker import Finished
from tests.dataplane.pair import pair
from tests.dataplane.streams import precopy

RESET_ON_CLOSE = b"\x01\0\0\0\0\0\0\0"


class Sent:
    """Sends a stream in a thread of its own and knows its digest."""

    def __init__(self, sock: socket.socket, parts: Iterable[bytes]) -> None:
        self.digest = hashlib.sha256()
        self.sent_bytes = 0
        self._thread = threading.Thread(target=self._run, args=(sock, parts))
        self._thread.start()

    def _run(self, sock: socket.socket, parts: Iterable[bytes]) -> None:
        pending = bytearray()
        for part in parts:
            self.digest.update(part)
            self.sent_bytes += len(part)
            pending += part
            if len(pending) >= 1 << 17:
                sock.sendall(pending)
                pending.clear()
        sock.sendall(pending)
        sock.shutdown(socket.SHUT_WR)

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def receive(sock: socket.socket, progress: Callable[[int], None] = lambda _: None) -> str:
    digest = hashlib.sha256()
    taken = 0
    while data := sock.recv(1 << 18):
        digest.update(data)
        taken += len(data)
        progress(taken)
    return digest.hexdigest()


def test_a_stream_arrives_identical_and_smaller_and_both_sides_end_in_order(tmp_path: Path) -> None:
    with pair(tmp_path) as made:
        source, destination = made.connect()
        sent = Sent(source, precopy(1, 4000))
        assert receive(destination) == sent.digest.hexdigest()
        sent.join()
        destination.sendall(b"SHUT")
        destination.close()
        assert source.recv(100) == b"SHUT"
        assert source.recv(100) == b""
        finished = made.source.wait(Finished)
        assert (finished.result, finished.detail) == ("carried", "")
        assert finished.counters.raw_bytes == sent.sent_bytes
        assert finished.counters.wire_bytes < sent.sent_bytes * 0.7
        assert finished.counters.pages["delta"] > 0
        assert finished.counters.pages["zero"] > 0
        assert made.destination.wait(Finished).result == "carried"
        assert [each.detail for each in made.source.events("connection-opened")] == ["main"]
        assert made.source.events("switchover")
        assert made.source.process.wait(10) == 0
        assert made.destination.process.wait(10) == 0


def test_channels_that_die_lose_nothing(tmp_path: Path) -> None:
    draw = random.Random(7)
    with pair(tmp_path, channels=6) as made:
        source, destination = made.connect()
        sent = Sent(source, precopy(2, 6000))
        next_cut = 2 << 20

        def kill_one(taken: int) -> None:
            nonlocal next_cut
            if taken > next_cut and made.channels:
                next_cut += 2 << 20
                made.break_channel(draw.randrange(len(made.channels)))

        assert receive(destination, kill_one) == sent.digest.hexdigest()
        sent.join()
        destination.close()
        finished = made.source.wait(Finished)
        assert finished.result == "carried"
        assert finished.counters.channels_lost >= 3


def test_a_link_that_was_cut_resumes_and_qemu_notices_nothing(tmp_path: Path) -> None:
    with pair(tmp_path) as made:
        source, destination = made.connect()
        sent = Sent(source, precopy(3, 5000))
        healed = threading.Event()

        def cut_once(taken: int) -> None:
            if taken > 3 << 20 and not made.refuse_channels.is_set() and not healed.is_set():
                made.refuse_channels.set()
                made.cut()
                made.source.wait_event("link-lost")
                made.refuse_channels.clear()
                healed.set()

        assert receive(destination, cut_once) == sent.digest.hexdigest()
        sent.join()
        destination.close()
        assert made.source.wait(Finished).result == "carried"
        assert made.source.events("link-restored")


def test_a_link_that_stays_cut_resets_qemu_after_its_time(tmp_path: Path) -> None:
    with pair(tmp_path, loss_s_max=2.0) as made:
        source, destination = made.connect()
        source.sendall(b"QEVM\0\0\0\x03 and so on")
        destination.recv(8)
        made.refuse_channels.set()
        made.cut()
        with pytest.raises(ConnectionResetError):
            source.recv(1)
        with pytest.raises(ConnectionResetError):
            receive(destination)
        assert made.source.wait(Finished).result in ("link-lost", "failed")


def test_a_reset_of_either_qemu_reaches_the_other(tmp_path: Path) -> None:
    for side in (0, 1):
        (directory := tmp_path / str(side)).mkdir()
        with pair(directory) as made:
            ends = made.connect()
            ends[0].sendall(b"some bytes")
            assert ends[1].recv(4) == b"some"
            ends[side].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            ends[side].close()
            with pytest.raises(ConnectionResetError):
                receive(ends[1 - side])
            assert made.source.wait(Finished).result == "reset"
            assert made.destination.wait(Finished).result == "reset"


def test_a_connection_that_qemu_does_not_read_does_not_stop_another(tmp_path: Path) -> None:
    with pair(tmp_path) as made:
        stuck_source, stuck_destination = made.connect()
        source, destination = made.connect()
        stuck = Sent(stuck_source, precopy(4, 6000))
        sent = Sent(source, precopy(5, 3000))
        assert receive(destination) == sent.digest.hexdigest()
        assert receive(stuck_destination) == stuck.digest.hexdigest()
        stuck.join()
        sent.join()


def test_a_disk_copy_is_told_apart_by_its_servers_greeting(tmp_path: Path) -> None:
    with pair(tmp_path) as made:
        client, server = made.connect()
        server.sendall(b"NBDMAGICIHAVEOPT\0\3")
        assert client.recv(100) == b"NBDMAGICIHAVEOPT\0\3"
        client.sendall(b"\0\0\0\3IHAVEOPT")
        assert server.recv(100, socket.MSG_PEEK)
        made.source.wait_event("connection-opened")
        assert [each.detail for each in made.source.events("connection-opened")] == ["nbd"]


def test_a_killed_data_process_breaks_the_connection_on_the_other_host_soon(tmp_path: Path) -> None:
    with pair(tmp_path, loss_s_max=3.0) as made:
        source, destination = made.connect()
        source.sendall(b"QEVM\0\0\0\x03 and so on")
        destination.recv(8)
        made.refuse_channels.set()
        made.destination.process.kill()
        with pytest.raises(ConnectionResetError):
            source.recv(1)
        assert destination.recv(100) in (b"", b" and so on")
