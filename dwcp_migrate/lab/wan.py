"""The WAN between the lab's hypervisors: rate, delay, loss and queue, changed live, cut and healed.

The rule here: a packet is an MTU's worth. The links are TUN devices without offloads, so loss hits single packets as on
a real path and not 64 KiB super-packets, and every byte on the wire is counted.

The same relay (relay.c, compiled once a machine) runs everywhere instead of `sch_netem`: many kernels lack netem, and
its random numbers cannot be seeded before Linux 6.6. It carries 1 Gbit/s at MTU 1500 on half a core (see docs/lab.md).

Each host has an uplink with a `WanLink`'s properties; the way from one host to another is the sender's uplink.
Downlinks are not limited, so with two hosts the link is symmetric and with more each host is a site behind its own
uplink.
"""

import socket
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.commands import run_program
from dwcp_migrate.lab.hosts.namespace import Namespace
from dwcp_migrate.lab.hosts.processes import ProcessId, launch_announced
from dwcp_migrate.lab.images import cache

DEVICE: Final = "wan0"
NETWORK: Final = "10.77.0.0/24"
"""Exists in the lab's namespaces only, so that labs do not collide with each other or with the machine's networks."""

MTU_BYTES: Final = 1500
REPLY_S_MAX: Final = 5.0
"""The relay answers between two packets; more means that it is gone or stopped."""

TRANSMIT_QUEUE_PACKETS: Final = 4000
"""Holds what a sender emits while the relay waits for a core (30 ms at 1 Gbit/s); it must not be where packets drop."""


class WanLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Properties of each host's uplink.

    Attributes:
        rate_bytes_per_s: drain rate of the queue.
        delay_s: one way; the round trip is twice as long.
        loss: probability that a packet is lost, 0 to 1; drawn for each packet.
        queue_bytes: bound of the queue before the bottleneck; 0 takes one bandwidth-delay product, at least 64 KiB.
    """

    rate_bytes_per_s: float = 25e6
    delay_s: float = 0.020
    loss: float = 0.001
    queue_bytes: int = 0

    @property
    def queue_bytes_effective(self) -> int:
        """The queue's bound with the default worked out."""
        return self.queue_bytes or max(int(self.rate_bytes_per_s * self.delay_s * 2), 65536)


class Uplink(msgspec.Struct, frozen=True):
    """One host's uplink as the relay has it: counters since the lab's start, and what is set.

    Attributes:
        sent_bytes: put on the wire by this host, IP headers included, lost packets included.
        sent_packets: the same in packets.
        lost_packets: lost by chance.
        dropped_packets: refused by the full queue.
        delivered_bytes: handed to the other hosts.
        delivered_packets: the same in packets.
        cut: nothing passes in either direction.
        rate_bytes_per_s: as set.
        delay_us: as set.
        loss_ppm: as set.
        queue_bytes: as set.
    """

    sent_bytes: int
    sent_packets: int
    lost_packets: int
    dropped_packets: int
    delivered_bytes: int
    delivered_packets: int
    cut: bool
    rate_bytes_per_s: int
    delay_us: int
    loss_ppm: int
    queue_bytes: int


class Wan:
    """Handle of a running relay.

    Args:
        socket_path: where it takes commands.
        hosts: names of the hosts that it connects.
    """

    def __init__(self, socket_path: Path, hosts: tuple[str, ...]) -> None:
        self._socket_path = socket_path
        self._hosts = hosts

    def set(self, link: WanLink, *hosts: str) -> None:
        """Change the uplinks of these hosts, or of all; packets under way keep their due times.

        Raises:
            LabError: the relay is gone, or there is no such host.
        """
        for host in hosts or self._hosts:
            self._ask(
                f"set {host} {int(link.rate_bytes_per_s)} {round(link.delay_s * 1e6)} {round(link.loss * 1e6)} "
                f"{link.queue_bytes_effective}"
            )

    def cut(self, *hosts: str) -> None:
        """Let no packet pass from or to these hosts, or any host if none is named; packets under way are lost."""
        for host in hosts or self._hosts:
            self._ask(f"cut {host}")

    def heal(self, *hosts: str) -> None:
        """Undo `cut`."""
        for host in hosts or self._hosts:
            self._ask(f"heal {host}")

    def uplinks(self) -> dict[str, Uplink]:
        """Return each host's uplink with its counters."""
        return msgspec.json.decode(self._ask("stats"), type=dict[str, Uplink])

    def wire_bytes(self) -> int:
        """Return what all hosts together have put on the wire since the lab's start."""
        return sum(uplink.sent_bytes for uplink in self.uplinks().values())

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(REPLY_S_MAX)
            try:
                connection.connect(str(self._socket_path))
                connection.sendall(command.encode())
                with connection.makefile("r") as file:
                    reply = file.read()
            except OSError as error:
                raise LabError(f"the WAN does not answer: {error}", hint="see `dwcp-migrate lab status`") from error
        if reply.startswith("error: "):
            raise LabError(f"WAN: {reply.removeprefix('error: ').strip()}")
        return reply


def start(directory: Path, hosts: dict[str, tuple[Namespace, str]], *, seed: int, lab_id: str) -> ProcessId:
    """Start the relay and give each host its address on it.

    Args:
        directory: where the relay's socket and log go.
        hosts: name to (namespaces, IPv4 address without prefix length), 16 at most.
        seed: of the losses.
        lab_id: what the relay is marked with.

    Raises:
        LabError: no compiler, no /dev/net/tun, or a host's namespaces are gone.
    """
    arguments = [f"{name}={namespace.path('net')}={address}" for name, (namespace, address) in hosts.items()]
    log = directory / "wan.log"
    process, line = launch_announced(
        [str(relay_program()), str(directory / "wan.sock"), str(seed), *arguments], log=log, lab_id=lab_id
    )
    if line != "ready":
        raise LabError(f"the WAN did not start: {log.read_text().strip()}")
    for namespace, address in hosts.values():
        run_program(namespace.inside(["ip", "address", "add", f"{address}/32", "dev", DEVICE]))
        up = ["mtu", str(MTU_BYTES), "txqueuelen", str(TRANSMIT_QUEUE_PACKETS), "up"]
        run_program(namespace.inside(["ip", "link", "set", DEVICE, *up]))
    return process


def set_congestion_control(namespace: Namespace, name: str) -> None:
    """Set TCP's congestion control for all new connections of a host over the WAN.

    It is a property of the route (`congctl`), because the sysctl of a network namespace takes only algorithms that the
    machine's own default or allow-list names, and those are not ours to change. A program that wants another one must
    set it after connecting: at connect time the route's wins.

    Args:
        namespace: of the host.
        name: of the algorithm, as `cubic` or `bbr`.

    Raises:
        LabError: this kernel does not have it.
    """
    run_program(namespace.inside(["ip", "route", "replace", NETWORK, "dev", DEVICE, "congctl", name]))


def join_directly(first: tuple[Namespace, str], second: tuple[Namespace, str]) -> None:
    """Lead the way between two hosts over a veth pair instead of the relay, both ways, for new connections.

    Args:
        first: namespaces and IPv4 address of one host.
        second: of the other.

    Raises:
        LabError: the kernel has no veth pairs.
    """
    pids = [str(namespace.holder.pid) for namespace, _ in (first, second)]
    ends = [f"direct-{pid}"[:15] for pid in pids]
    run_program(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]])
    for (namespace, address), (_, peer), end, pid in zip((first, second), (second, first), ends, pids, strict=True):
        run_program(["ip", "link", "set", end, "netns", pid])
        run_program(namespace.inside(["ip", "link", "set", end, "up"]))
        run_program(namespace.inside(["ip", "route", "replace", f"{peer}/32", "dev", end, "src", address]))


def relay_program() -> Path:
    """Return the compiled relay, compiling it first where this machine has none.

    Raises:
        LabError: there is no C compiler.
    """
    source = resources.files("dwcp_migrate.lab").joinpath("relay.c").read_bytes()

    def build(directory: Path) -> None:
        (directory / "relay.c").write_bytes(source)
        run_program(["cc", "-O2", "-Wall", "-o", str(directory / "relay"), str(directory / "relay.c")])

    return cache.entry("relay", cache.digest(source), build) / "relay"
