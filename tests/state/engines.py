"""Both engines behind their interface, ready to be asked, for the tests that hold them to one contract."""

import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dwcp_migrate.state.engine import Engine
from dwcp_migrate.state.etcd.engine import COMPACT_ENTRIES, EtcdEngine, EtcdSettings
from dwcp_migrate.state.raft.engine import RaftEngine
from dwcp_migrate.state.raft.peer_connections import PeerIdentity
from dwcp_migrate.state.raft.replica import RaftSettings

ETCD = Path(sys.executable).with_name("etcd")


@asynccontextmanager
async def lone_raft(directory: Path, clock: Callable[[], float]) -> AsyncIterator[RaftEngine]:
    """A Raft engine of one voter, which needs neither network nor certificates."""
    identity = PeerIdentity(
        name="a", client=no_context, server=no_context, identify=lambda _: None, address=lambda _: None
    )
    settings = RaftSettings(directory=directory, voters=("a",), election_s=0.05)
    rejected: list[str] = []
    leaders: list[tuple[str, int]] = []
    engine = RaftEngine(
        settings,
        identity,
        rejected=rejected.append,
        leader_changed=lambda leader, term: leaders.append((leader, term)),
        clock=clock,
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
        assert rejected == []
        assert {leader for leader, _ in leaders} <= {"", "a"}


def no_context() -> ssl.SSLContext:
    raise AssertionError("one voter talks to nobody")


class EtcdServer:
    """An etcd of its own, on free ports of loopback, without fsync of consequence."""

    def __init__(self, directory: Path, *options: str, scheme: str = "http") -> None:
        self._directory = directory
        self._options = options
        self._client = f"{scheme}://127.0.0.1:{_free_port()}"
        self._peer = f"http://127.0.0.1:{_free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self._client

    def spawn(self) -> None:
        """Start it."""
        with (self._directory / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(ETCD),
                    f"--data-dir={self._directory / 'etcd'}",
                    f"--listen-client-urls={self._client}",
                    f"--advertise-client-urls={self._client}",
                    f"--listen-peer-urls={self._peer}",
                    f"--initial-advertise-peer-urls={self._peer}",
                    f"--initial-cluster=default={self._peer}",
                    "--heartbeat-interval=50",
                    "--election-timeout=500",
                    *self._options,
                ],
                stdout=log,
                stderr=log,
            )

    async def ready(self) -> None:
        """Wait until it answers."""
        async with etcd_engine(self, "probe") as engine:
            await engine.barrier(30)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@asynccontextmanager
async def etcd_engine(
    server: EtcdServer,
    name: str = "a",
    clock: Callable[[], float] = lambda: 0.0,
    *dead: str,
    compact_entries: int = COMPACT_ENTRIES,
) -> AsyncIterator[EtcdEngine]:
    """An etcd engine of a host."""
    engine = EtcdEngine(name, EtcdSettings([*dead, server.url], compact_entries=compact_entries), clock)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def index_of(engine: Engine) -> int:
    """How much history an engine has seen."""
    return await engine.look(lambda fleet: fleet.index)
