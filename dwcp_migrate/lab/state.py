"""Record of a running lab, read by `lab status` and `lab down`, also after a crash.

The rule here: the record is written before what it records can be lost, atomically, and read without trust in it: a
process counts only with its start time, a lab counts as alive only with all its holders and its WAN.

A lab owned by a process (a test run) is dead when its owner is; a lab of the command line has no owner and stays until
`lab down`.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from dwcp_migrate.errors import LabError, NotFoundError
from dwcp_migrate.lab.hosts.processes import ProcessId, marked_processes
from dwcp_migrate.lab.wan import WanLink

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,23}")
"""Becomes part of socket paths (108 bytes at most) and of directory names."""

RECORD: Final = "lab.json"


class HostRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One hypervisor: its name, its address on the WAN and the holder of its namespaces."""

    name: str
    address: str
    holder: ProcessId


class LabRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One lab.

    Attributes:
        name: as given with `--name`.
        lab_id: unique; its processes carry it in their environment.
        link: what its WAN was started with.
        seed: of the WAN's losses.
        owner: the process that the lab ends with, if any.
        hosts: its hypervisors, in order.
        wan: the relay, once started.
        agents: host name to the agent that runs for it.
    """

    name: str
    lab_id: str
    link: WanLink
    seed: int
    owner: ProcessId | None = None
    hosts: list[HostRecord] = []
    wan: ProcessId | None = None
    agents: dict[str, ProcessId] = {}


Condition = Literal["up", "damaged", "abandoned"]


def base() -> Path:
    """Return the directory of all labs: `DWCP_LAB_STATE`, or else /run/dwcp-migrate-lab."""
    return Path(os.environ.get("DWCP_LAB_STATE", "/run/dwcp-migrate-lab"))


def directory(name: str) -> Path:
    """Return a lab's directory, whether it exists or not.

    Raises:
        LabError: the name is not one that a lab can have.
    """
    if not NAME.fullmatch(name):
        raise LabError(f"'{name}' cannot name a lab", hint="a-z, 0-9 and -, at most 24 characters")
    return base() / name


def write(record: LabRecord) -> None:
    """Write a lab's record, all or nothing."""
    path = directory(record.name) / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    temporary.rename(path)


def read(name: str) -> LabRecord:
    """Read a lab's record.

    Raises:
        NotFoundError: there is no such lab.
        LabError: its record is unreadable.
    """
    path = directory(name) / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabRecord)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no lab '{name}'", hint="`dwcp-migrate lab up` starts one") from error
    except msgspec.DecodeError as error:
        raise LabError(f"{path}: {error}", hint=f"`dwcp-migrate lab down --name {name}` clears it") from error


def names() -> list[str]:
    """Return the names of all labs that left a directory, alive or dead."""
    return sorted(path.name for path in base().glob("*") if path.is_dir() and NAME.fullmatch(path.name))


def condition(record: LabRecord) -> Condition:
    """Tell whether all of a lab runs, something of it is gone, or its owner is."""
    if record.owner is not None and not record.owner.is_alive():
        return "abandoned"
    essential = [host.holder for host in record.hosts] + ([record.wan] if record.wan else [])
    whole = record.wan is not None and all(process.is_alive() for process in essential)
    return "up" if whole else "damaged"


def clear(name: str) -> None:
    """End everything that belongs to a lab and remove its directory; works on any wreck of one.

    Raises:
        LabError: a process does not end.
    """
    try:
        record: LabRecord | None = read(name)
    except (NotFoundError, LabError):
        record = None
    if record is not None:
        for agent in record.agents.values():
            agent.end()
        for host in record.hosts:  # the kernel ends all processes in its PID namespace
            host.holder.end(grace_s=0)
        for process in marked_processes(record.lab_id):
            process.end(grace_s=0)
    shutil.rmtree(directory(name), ignore_errors=record is None)


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock of all labs: `up` and `down` take turns (half a second each).

    Raises:
        LabError: we may not write the labs' directory.
    """
    try:
        base().mkdir(parents=True, exist_ok=True, mode=0o755)
        with (base() / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise LabError(f"cannot write {base()}", hint="the lab needs root") from error
