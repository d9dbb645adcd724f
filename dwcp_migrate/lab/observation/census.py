"""Census of a lab at one moment: a leak is a difference between two counts.

The rule here: only what should stay the same from one migration to the next is counted, and everything of that kind is.
A lab at rest between two migrations, the same agents running, counts the same however many migrations it has seen.

Counted by host: processes by name (QEMU's over all hosts: guests move), the agent's threads, descriptors and children,
nftables' rules, mounts. Not counted: control connections that agents keep for the next migration, up to their limit,
and QEMUs that libvirtd starts to ask what they can do.
"""

import os
import time
from pathlib import Path
from typing import Final

from dwcp_migrate.config import LinkConfig
from dwcp_migrate.dataplane.process_pool import SPARES
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab

Census = dict[str, int]
"""`HOST WHAT` to count."""

REST_S_MAX: Final = 120.0
"""Time from a migration's end until the last ssh session, data process and record are gone; an agent waits at most 20 s
for libvirt's and its peer's reports."""

POLL_S: Final = 0.1
CONTROL_CONNECTIONS_MAX: Final = 8
"""Two hosts keep four each way (agent.peers.client.KEPT_EACH_MAX)."""

AGENT_THREADS: Final = 16
"""The threads of the event loop, the forecast loop and Raft, and those that start on demand: a snapshot's writer, and
those that wait for libvirt's answers (hypervisor.libvirt_events.THREADS)."""

NO_MACHINE: Final = b"\0-machine\0none"
"""On the command line of a QEMU that libvirtd asks for its capabilities; on a busy machine that takes half a minute."""

_UP: Final = frozenset({"01", "08"})
"""Established; and waiting to be closed here, since a peer's agent that was restarted has closed its end."""


def take(lab: Lab) -> Census:
    """Count what the lab holds now."""
    census: Census = {"all qemu": 0}
    for host in lab.hypervisors:
        counts = _of_host(host)
        census["all qemu"] += counts.pop("qemu-system-x86", 0)
        agent = lab.agents.get(host.name)
        if agent is not None and agent.is_alive():
            counts |= _of_agent(agent.process.pid)
        census |= {f"{host.name} {what}": count for what, count in counts.items()}
    return census


def at_rest(lab: Lab, *, timeout_s: float = REST_S_MAX) -> Census:
    """Wait until every agent has its spare data processes and no others, and count.

    Args:
        lab: with agents that run.
        timeout_s: longest wait in seconds.

    Raises:
        LabError: an agent has fewer or more when the time is over.
    """
    deadline = time.monotonic() + timeout_s
    agents = {host: agent.process.pid for host, agent in lab.agents.items() if agent.is_alive()}
    while wrong := {host: count for host, pid in agents.items() if (count := len(children(pid))) != SPARES}:
        if time.monotonic() >= deadline:
            raise LabError(f"data processes that wait: {wrong}, expected {SPARES}")
        time.sleep(POLL_S)  # as in `settled`
    return take(lab)


def difference(before: Census, after: Census) -> dict[str, tuple[int, int]]:
    """Return the counts that differ, as (before, after); a count that one side lacks is 0 there.

    Args:
        before: the earlier census.
        after: the later one.
    """
    keys = sorted(before.keys() | after.keys())
    pairs = {key: (before.get(key, 0), after.get(key, 0)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and not _is_broken_off(key, *pair)}


def _is_broken_off(key: str, before: int, after: int) -> bool:
    """Fewer descriptors: connections to libvirtd that broke, which the next question opens again."""
    return key.endswith("agent descriptors") and after < before


def settled(lab: Lab, before: Census, *, timeout_s: float = REST_S_MAX) -> dict[str, tuple[int, int]]:
    """Wait until the lab counts as before.

    Args:
        lab: to count.
        before: the census to come back to.
        timeout_s: longest wait in seconds.

    Returns:
        Counts that still differ when the time is over, as (before, after); empty where none do.
    """
    deadline = time.monotonic() + timeout_s
    while (left := difference(before, take(lab))) and time.monotonic() < deadline:
        time.sleep(POLL_S)  # processes that are none of our children have no event that is simpler than asking again
    return left


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory.

    Raises:
        FileNotFoundError: it is gone.
    """
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that are not gone yet, oldest first."""
    found: list[int] = []
    for task in _listed(Path(f"/proc/{pid}/task")):
        try:
            found += map(int, (task / "children").read_text().split())
        except FileNotFoundError:
            continue
    return sorted(found)


def _of_host(host: Hypervisor) -> Census:
    holder = host.namespace.holder.pid
    counts: Census = {}
    for name in _names(_namespace(holder)):
        counts[name] = counts.get(name, 0) + 1
    counts["mounts"] = len(Path(f"/proc/{holder}/mountinfo").read_text().splitlines())
    counts["nft rules"] = host.run(["nft", "list", "ruleset"]).stdout.count("redirect to")
    return counts


def _of_agent(pid: int) -> Census:
    control = _control_connections(pid)
    descriptors = [_target(entry) for entry in _listed(Path(f"/proc/{pid}/fd"))]
    kept = sum(target in control for target in descriptors)
    return {
        "agent threads": max(len(_listed(Path(f"/proc/{pid}/task"))), AGENT_THREADS),
        "agent descriptors": len(descriptors) - min(kept, CONTROL_CONNECTIONS_MAX),
        "agent children": len(children(pid)),
    }


def _control_connections(pid: int) -> set[str]:
    """Return the link targets of the descriptors of connections from or to a link port."""
    port = f"{LinkConfig().port:04X}"
    found = set()
    for family in ("tcp", "tcp6"):  # what a listener of both families accepts is of the second, IPv4 or not
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            _, local, remote, state, *rest = line.split()
            if state in _UP and port in {local.split(":")[1], remote.split(":")[1]}:
                found.add(f"socket:[{rest[5]}]")
    return found


def _names(namespace: str) -> list[str]:
    """Return the names of all processes in a network namespace, without QEMUs that are only asked what they can do."""
    names = []
    for entry in _listed(Path("/proc")):
        if entry.name.isdigit() and _namespace(int(entry.name)) == namespace:
            try:
                if NO_MACHINE not in (entry / "cmdline").read_bytes():
                    names.append((entry / "comm").read_text().strip())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return names


def _namespace(pid: int) -> str:
    return _target(Path(f"/proc/{pid}/ns/net"))


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # the process or the descriptor is gone
        return ""


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
