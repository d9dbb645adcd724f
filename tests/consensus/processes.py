"""A group of real processes on loopback with mutual TLS, and what can happen to it: kill, stop, part, fill the disk."""

import asyncio
import os
import random
import resource
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import msgspec

from dwcp_migrate.consensus.io.client_node import GroupClient
from dwcp_migrate.pki import create_authority, issue
from tests.consensus.members import identity, membership
from tests.consensus.replica_process import GroupFile, node_options

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0


class Wire:
    """A proxy in front of one replica for one other: passes bytes, or takes them and passes nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.is_cut = False

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there[1]}
        await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
        self._writers -= {writer, there[1]}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self.is_cut:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass  # the other end is gone: so is this one
        writer.transport.abort()

    def heal(self) -> None:
        """Pass bytes again: on new connections, for the old ones lost some."""
        self.is_cut = False
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()


class Processes:
    """The group."""

    def __init__(self, directory: Path, replicas: int, clients: int) -> None:
        self.directory = directory
        self.names = [f"r{place}" for place in range(replicas)]
        self.clients = [f"c{place}" for place in range(clients)]
        self.running: dict[str, Process] = {}
        self.wires: dict[tuple[str, str], Wire] = {}
        self._group: GroupFile

    async def start(self) -> None:
        create_authority(self.directory)
        for name in (*self.names, *self.clients):
            issue(self.directory, name)
        listen = dict(zip(self.names, free_ports(len(self.names)), strict=True))
        dial: dict[str, dict[str, int]] = {name: {} for name in (*self.names, *self.clients)}
        for dialler, ports in dial.items():
            for name in self.names:
                if name != dialler:
                    wire = self.wires[dialler, name] = Wire(listen[name])
                    ports[name] = await wire.start()
        self._group = GroupFile(self.names, self.clients, listen, dial)
        (self.directory / "group.json").write_bytes(msgspec.json.encode(self._group))
        await asyncio.gather(*(self.launch(name) for name in self.names))

    async def launch(self, name: str) -> None:
        command = (sys.executable, "-m", "tests.consensus.replica_process", str(self.directory), name)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
        self.running[name] = process
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), WAIT_S)
        assert line == b"up\n", line

    async def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        await process.wait()
        _close(process)

    def pause(self, name: str) -> None:
        os.kill(self.running[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.kill(self.running[name].pid, signal.SIGCONT)

    def cut(self, name: str) -> None:
        """Let nothing pass between a replica and everybody else, while all connections stay up."""
        for (a, b), wire in self.wires.items():
            if name in (a, b):
                wire.is_cut = True

    def heal(self) -> None:
        for wire in self.wires.values():
            if wire.is_cut:
                wire.heal()

    def fill_disk(self, name: str) -> None:
        """No file of this process may grow from now on."""
        size = max(path.stat().st_size for path in (self.directory / name).iterdir())
        resource.prlimit(self.running[name].pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def free_disk(self, name: str) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self.running[name].pid, resource.RLIMIT_FSIZE, unlimited)

    async def client(self, name: str, connections: int) -> GroupClient:
        members = membership(self.names, tuple(self.clients))
        client = GroupClient(name, identity(name), members, node_options(self.directory, self._group, name))
        await asyncio.wait_for(client.start(connections), WAIT_S)
        return client

    async def stop(self) -> None:
        for process in self.running.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in self.running.values():
            await asyncio.wait_for(process.wait(), WAIT_S)
            assert process.returncode == 0
            _close(process)
        for wire in self.wires.values():
            await wire.stop()


def _close(process: Process) -> None:
    transport = process._transport  # type: ignore[attr-defined]
    transport.close()


def free_ports(count: int) -> list[int]:
    """Find free ports below those that the kernel hands out: nobody else is given one before it is listened on."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    for port in random.sample(range(first - 10_000, first), 1000):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError("no free ports")
