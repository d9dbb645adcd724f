"""A whole lab: hypervisors and the WAN between them, brought up, found again, and taken down without a trace.

The rule here: nothing outside the lab's namespaces is changed, and after any failure or crash, at any point, `down`
(or the next `up` under the same name) clears it all.

    with Lab.up(LabOptions(name="demo")) as lab:       # down at the end
        lab["hv1"].virsh("list")
        lab.wan.cut()

    Lab.up(options)     # or: stays up
    Lab.load("demo")    # from another process
    lab.down()
"""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dwcp_migrate.errors import LabError, NotFoundError
from dwcp_migrate.lab import state, wan
from dwcp_migrate.lab.commands import require_programs
from dwcp_migrate.lab.hosts import agents, hypervisor
from dwcp_migrate.lab.hosts.agents import LabAgent
from dwcp_migrate.lab.hosts.hypervisor import Blueprint, Hypervisor
from dwcp_migrate.lab.hosts.namespace import Namespace
from dwcp_migrate.lab.hosts.processes import ProcessId, identify_process
from dwcp_migrate.lab.hosts.settings import SshKey
from dwcp_migrate.lab.images import build
from dwcp_migrate.lab.images.tree import obtain_tree
from dwcp_migrate.lab.wan import Wan, WanLink

HOSTS_MAX: Final = 16
"""Ends that the relay connects."""

PROGRAMS: Final = ("ip", "nsenter", "unshare")


@dataclass(frozen=True, slots=True)
class LabOptions:
    """Options of a lab.

    Attributes:
        name: labs with different names run side by side.
        hosts: how many hypervisors: hv1, hv2, ...
        link: the WAN.
        seed: of the WAN's losses.
        congestion_control: TCP's, on every host.
        keepalive: libvirt's, as shipped; off, its connections outlive any cut of the link.
        owned: the lab ends with this process: left behind by a crash, it counts as abandoned and is cleared.
    """

    name: str = "lab"
    hosts: int = 2
    link: WanLink = field(default_factory=WanLink)
    seed: int = 1
    congestion_control: str = "cubic"
    keepalive: bool = True
    owned: bool = False


class Lab:
    """A running lab; use `up` or `load`."""

    def __init__(self, record: state.LabRecord) -> None:
        self._record = record
        directory = state.directory(record.name)
        self.name = record.name
        self.directory = directory
        self.hypervisors = [
            Hypervisor(host.name, host.address, directory / host.name, Namespace(host.holder, record.lab_id))
            for host in record.hosts
        ]
        self.wan = Wan(directory / "wan.sock", tuple(host.name for host in record.hosts))

    @classmethod
    def up(cls, options: LabOptions) -> Self:
        """Bring a lab up; a dead one of the same name is cleared first.

        Raises:
            LabError: not root, a lab of that name is up already, or a part does not start (all is cleared then).
        """
        check_privileges()
        require_programs(*PROGRAMS)
        if not 1 <= options.hosts <= HOSTS_MAX:
            raise LabError(f"a lab has 1 to {HOSTS_MAX} hosts, not {options.hosts}")
        clear_abandoned()
        build.directory()  # may take minutes the first time: not under the lock
        with state.locked():
            _refuse_second(options.name)
            state.clear(options.name)
            try:
                return cls(_bring_up(options))
            except BaseException:
                state.clear(options.name)
                raise

    @classmethod
    def load(cls, name: str) -> Self:
        """Find a lab that is up.

        Raises:
            NotFoundError: there is none of that name.
            LabError: parts of it are gone.
        """
        record = state.read(name)
        if state.condition(record) != "up":
            raise LabError(f"lab '{name}' is damaged", hint=f"`dwcp-migrate lab down --name {name}`, then up again")
        return cls(record)

    def down(self) -> None:
        """End everything that belongs to this lab.

        Raises:
            LabError: a process does not end.
        """
        down(self.name)

    def start_agents(self, changes: agents.Changes | None = None) -> dict[str, LabAgent]:
        """Start the agents of all hosts.

        Args:
            changes: configuration that differs from the lab's, for instance `{"link": {"channels": 8}}`.

        Raises:
            LabError: one of them did not get ready.
        """
        return {each.name: self.start_agent(each.name, changes) for each in self.hypervisors}

    def start_agent(
        self, name: str, changes: agents.Changes | None = None, environment: Mapping[str, str] | None = None
    ) -> LabAgent:
        """Start the agent of one host; one that runs there already is stopped first.

        Args:
            name: of the host.
            changes: configuration that differs from the lab's; None for none.
            environment: that the agent gets besides, see `agents.start`.

        Raises:
            LabError: it did not get ready.
        """
        agents.prepare(self.directory, self.hypervisors)
        if name in self._record.agents:
            self._record.agents[name].end()
        agent = agents.start(self[name], self.hypervisors, changes or {}, environment)
        self._remember({**self._record.agents, name: agent.process})
        return agent

    def configure_agent(self, name: str, changes: agents.Changes) -> None:
        """Write the configuration of a host's agent; one that runs reads it when it is told to.

        Args:
            name: of the host.
            changes: keys that differ from the lab's.
        """
        agents.configure(self[name], self.hypervisors, changes)

    def join_directly(self) -> None:
        """Join the first two hosts by a veth pair, past the WAN: their addresses stay, and nothing limits them."""
        first, second = self.hypervisors[:2]
        wan.join_directly((first.namespace, first.address), (second.namespace, second.address))

    def stop_agents(self) -> None:
        """Stop the agents of all hosts; migrations are stock again."""
        for agent in self.agents.values():
            agent.stop()
        self._remember({})

    def forget_migrations(self) -> None:
        """Remove the history that stopped agents have kept of their migrations."""
        for host in self.hypervisors:
            agents.forget_migrations(host)

    @property
    def agents(self) -> dict[str, LabAgent]:
        """The agents that were started, by host; ask `is_alive`."""
        return {name: LabAgent(self[name], process) for name, process in self._record.agents.items()}

    def _remember(self, processes: dict[str, ProcessId]) -> None:
        self._record = msgspec.structs.replace(self._record, agents=processes)
        state.write(self._record)

    @property
    def record(self) -> state.LabRecord:
        """Its record on disk."""
        return self._record

    def __getitem__(self, name: str) -> Hypervisor:
        for each in self.hypervisors:
            if each.name == name:
                return each
        raise NotFoundError(f"lab '{self.name}' has no host '{name}'")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()


def down(name: str) -> None:
    """Take a lab down, or clear what is left of it.

    Raises:
        NotFoundError: nothing is left of a lab of that name.
        LabError: not root, or a process does not end.
    """
    check_privileges()
    with state.locked():
        if not state.directory(name).is_dir():
            raise NotFoundError(f"there is no lab '{name}'")
        state.clear(name)


def clear_abandoned() -> list[str]:
    """Clear the labs whose owner is dead, and return their names."""
    cleared = []
    with state.locked():
        for name in state.names():
            try:
                abandoned = state.condition(state.read(name)) == "abandoned"
            except (NotFoundError, LabError):
                continue  # of another version: `down` by name clears it
            if abandoned:
                state.clear(name)
                cleared.append(name)
    return cleared


def check_privileges() -> None:
    """Check that we may make namespaces.

    Raises:
        LabError: we are not root.
    """
    if os.geteuid() != 0:
        raise LabError("the lab needs root", hint="it makes network and mount namespaces and TUN devices")


def _refuse_second(name: str) -> None:
    try:
        up_already = state.condition(state.read(name)) == "up"
    except (NotFoundError, LabError):
        return
    if up_already:
        raise LabError(f"lab '{name}' is up already", hint="take another --name, or `dwcp-migrate lab down`")


def _bring_up(options: LabOptions) -> state.LabRecord:
    record = state.LabRecord(
        name=options.name,
        lab_id=uuid.uuid4().hex,
        link=options.link,
        seed=options.seed,
        owner=identify_process(os.getpid()) if options.owned else None,
    )
    state.write(record)
    directory = state.directory(options.name)
    built = []
    for blueprint in _blueprints(options):
        made = hypervisor.build(blueprint, directory / blueprint.name, lab_id=record.lab_id)
        built.append(made)
        host = state.HostRecord(made.name, made.address, made.namespace.holder)
        record = msgspec.structs.replace(record, hosts=[*record.hosts, host])
        state.write(record)
    relay = wan.start(
        directory,
        {each.name: (each.namespace, each.address) for each in built},
        seed=options.seed,
        lab_id=record.lab_id,
    )
    record = msgspec.structs.replace(record, wan=relay)
    state.write(record)
    Wan(directory / "wan.sock", tuple(each.name for each in built)).set(options.link)
    for each in built:
        wan.set_congestion_control(each.namespace, options.congestion_control)
        hypervisor.start(each)
    return record


def _blueprints(options: LabOptions) -> list[Blueprint]:
    addresses = {f"hv{number}": f"10.77.0.{number}" for number in range(1, options.hosts + 1)}
    root, guest_images, key, hook = obtain_tree().root, build.directory(), _ssh_key(), _hook()
    return [Blueprint(name, addresses, root, guest_images, key, hook, options.keepalive) for name in addresses]


def _ssh_key() -> SshKey:
    private = Ed25519PrivateKey.generate()
    return SshKey(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode(),
        private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        + "\n",
    )


def _hook() -> Path | None:
    """Find libvirt's hook in the checkout; an installed package has none beside it."""
    path = Path(__file__).parents[2] / "hooks" / "qemu.d" / "50-dwcp-migrate"
    return path if path.is_file() else None
