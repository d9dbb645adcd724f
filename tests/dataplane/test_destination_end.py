"""A destination waits for the source's word before it ends: a connection may come as the last one goes."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash

from dwcp_migrate.dataplane.destination import DestinationSession
from dwcp_migrate.delta import raw_payload
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.protocol.worker import Finished, Happened, SessionOptions, StartDestination
from dwcp_migrate.transport import FIN, OPEN, Link, LinkOptions, Segment
from tests.transport.pair import Listener, Recorder

LOSS_S_MAX = 1.0


@dataclass
class Sides:
    """A destination's session, and this test as its source and as its QEMU."""

    session: DestinationSession
    link: Link
    source: Recorder
    qemu: socket.socket
    said: list[Happened]

    def carry(self, connection: int, data: bytes) -> bytes:
        """One connection from its opening to its end on both sides; what QEMU read."""
        payload = raw_payload(memoryview(data))
        checksum = xxhash.xxh3_64_intdigest(data)
        self.link.send(Segment(connection, 0, OPEN, 0, 0, b""))
        self.link.send(Segment(connection, 1, 0, len(data), checksum, payload))
        self.link.send(Segment(connection, 2, FIN, 0, 0, b""))
        sock, _ = self.qemu.accept()
        with sock:
            read = sock.recv(len(data), socket.MSG_WAITALL)
            assert sock.recv(1) == b""
        self.source.wait_acknowledged(connection, 2)
        self.source.wait(lambda: Happened(event="connection-closed", connection=connection) in self.said)
        return read

    def finished(self) -> Finished:
        self.source.wait(lambda: self.session.finished() is not None)
        ended = self.session.finished()
        assert ended is not None
        return ended


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    create_authority(tmp_path)
    for name in ("source.test", "destination.test"):
        issue(tmp_path, name, addresses=["127.0.0.1"])
    session_id, token = os.urandom(16), os.urandom(32)
    with socket.create_server(("127.0.0.1", 0)) as qemu:
        qemu.settimeout(30)
        said: list[Happened] = []
        session = DestinationSession(_start(tmp_path, session_id, token, qemu.getsockname()[1]), said.append)
        listener = Listener(session.add_channel)
        source = Recorder()
        options = LinkOptions(
            session_id=session_id,
            token=token,
            peer_name="destination.test",
            ca=tmp_path / "ca.pem",
            certificate=tmp_path / "source.test.pem",
            key=tmp_path / "source.test.key",
            addresses=("127.0.0.1",),
            port=listener.port,
            channels=2,
        )
        link = source.link = Link("source", options, source)
        link.start()
        yield Sides(session, link, source, qemu, said)
        link.close()
        session.abort("the test is over")
        session.close()
        listener.close()


def _start(directory: Path, session_id: bytes, token: bytes, port: int) -> StartDestination:
    options = SessionOptions(
        ca=str(directory / "ca.pem"),
        certificate=str(directory / "destination.test.pem"),
        key=str(directory / "destination.test.key"),
        channels=2,
        channels_max=4,
        congestion_control="",
        connect_timeout_s=1.0,
        loss_s_max=LOSS_S_MAX,
        in_flight_ms_max=50,
        cache_bytes=1 << 20,
        workers=1,
        codec="none",
        level=1,
        level_max=1,
    )
    return StartDestination(
        session_id=session_id,
        token=token,
        peer_name="source.test",
        target_address="127.0.0.1",
        target_port=port,
        options=options,
    )


def test_a_connection_that_comes_after_the_last_one_ended_is_carried(sides: Sides) -> None:
    assert sides.carry(0, b"first") == b"first"
    assert sides.session.finished() is None
    assert sides.carry(1, b"second") == b"second"
    sides.link.close()
    assert sides.finished().result == "carried"


def test_an_idle_destination_whose_source_cannot_say_it_ends_carries_too(sides: Sides) -> None:
    assert sides.carry(0, b"only") == b"only"
    sides.link.close("the process was killed")
    assert sides.finished().result == "carried"


def test_an_idle_destination_that_is_told_to_go_has_carried(sides: Sides) -> None:
    assert sides.carry(0, b"only") == b"only"
    sides.session.abort("the source is gone")
    assert sides.finished().result == "carried"
