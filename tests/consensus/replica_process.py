"""A replica's process for tests: `python -m tests.consensus.replica_process DIRECTORY NAME`.

It reads `DIRECTORY/group.json`, says `up` on its standard output once it listens, and the error when it has to stop; it
ends with its standard input.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from bench.event_loop import run
from dwcp_migrate.consensus import Options, PbftReplica
from dwcp_migrate.consensus.io.journal_file import JournalFile
from dwcp_migrate.consensus.io.replica_node import Node, NodeOptions
from dwcp_migrate.transport.tls import make_context
from tests.consensus.members import identity, membership
from tests.consensus.registers import Registers


class GroupFile(msgspec.Struct):
    """What all processes of a group are told.

    Attributes:
        replicas: names.
        listen: port of each.
        dial: port at which each replica (outer) reaches each other one (inner): a proxy's.
    """

    replicas: list[str]
    clients: list[str]
    listen: dict[str, int]
    dial: dict[str, dict[str, int]]


OPTIONS = Options(checkpoint_interval=64, window=128, request_timeout_s=0.5, status_s=0.1)


def node_options(directory: Path, group: GroupFile, name: str) -> NodeOptions:
    ca, certificate, key = directory / "ca.pem", directory / f"{name}.pem", directory / f"{name}.key"
    return NodeOptions(
        listen=("127.0.0.1", group.listen.get(name, 0)),
        addresses={other: ("127.0.0.1", port) for other, port in group.dial[name].items()},
        server_context=lambda: make_context("server", ca, certificate, key),
        client_context=lambda: make_context("client", ca, certificate, key),
        certificate=certificate,
    )


async def main(directory: Path, name: str) -> None:
    group = msgspec.json.decode((directory / "group.json").read_bytes(), type=GroupFile)
    members = membership(group.replicas, tuple(group.clients))
    replica = PbftReplica(name, identity(name), members, Registers(), OPTIONS)
    node = Node(replica, JournalFile(directory / name / "journal"), node_options(directory, group, name))
    await node.start()
    sys.stdout.write("up\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    node.failed.add_done_callback(lambda _: ended.set())
    await ended.wait()
    if node.failed.done():
        sys.stdout.write(f"{node.failed.result()}\n")
    loop.remove_reader(sys.stdin.fileno())
    await node.stop()


if __name__ == "__main__":
    run(main(Path(sys.argv[1]), sys.argv[2]))
