"""Records and stacks of agents and data processes, gathered for a migration that stands still.

evidence.gather(lab)  ->  for each agent: its migrations' records, and the stacks of all its threads and of all
                          threads of its data processes, as they write them into the agent's log on SIGUSR1
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.hosts.agents import LabAgent
from dwcp_migrate.lab.lab import Lab
from dwcp_migrate.lab.observation import census

WORKER: Final = b"dwcp_migrate.dataplane.worker"
"""In the command line of a data process; other children of an agent's do not know the signal."""

QUIET_S: Final = 0.5
"""Stacks are written within milliseconds; a log that stayed the same for so long holds them."""

WRITE_S_MAX: Final = 10.0


def gather(lab: Lab) -> str:
    """Describe every agent that runs."""
    return "\n".join(_of_agent(agent) for agent in lab.agents.values() if agent.is_alive())


def _of_agent(agent: LabAgent) -> str:
    try:
        records = json.dumps(agent.get("/v1/migrations"), indent=1)
    except LabError as error:
        records = str(error)
    begin = agent.log.stat().st_size
    for process in [agent.process.pid, *filter(_is_worker, census.children(agent.process.pid))]:
        os.kill(process, signal.SIGUSR1)
    _wait_quiet(agent.log)
    with agent.log.open("rb") as log:
        log.seek(begin)
        stacks = log.read().decode(errors="replace")
    return f"--- {agent.hypervisor.name}: {records}\n{stacks}"


def _is_worker(pid: int) -> bool:
    try:
        return WORKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it is gone
        return False


def _wait_quiet(log: Path) -> None:
    deadline = time.monotonic() + WRITE_S_MAX
    size, since = -1, 0.0
    while time.monotonic() < deadline:
        now, found = time.monotonic(), log.stat().st_size
        if found != size:
            size, since = found, now
        elif now - since >= QUIET_S:
            return
        time.sleep(census.POLL_S)
