"""The agent as a process: one for its directories, ended and told to read its configuration by signals."""

import asyncio
import contextlib
import faulthandler
import os
import signal
from collections.abc import Callable
from pathlib import Path

from dwcp_migrate.agent.daemon import Agent
from dwcp_migrate.agent.http.host_facts import forbid_core_dumps
from dwcp_migrate.agent.instance_lock import InstanceLock
from dwcp_migrate.agent.systemd import Notifier
from dwcp_migrate.config import Config
from dwcp_migrate.errors import ConfigError
from dwcp_migrate.hypervisor.base import DomainWatcher, Interceptor


async def serve_agent(
    config: Config, path: Path, watcher: DomainWatcher | None, interceptor: Callable[[], Interceptor]
) -> None:
    """Run the agent in this process until SIGTERM or SIGINT; SIGHUP reloads, SIGUSR1 writes all threads' stacks.

    Args:
        config: what it runs with.
        path: the file that a reload reads.
        watcher: libvirt; None runs without.
        interceptor: opens the redirect's interface in the kernel.

    Raises:
        HypervisorError: another agent runs with these directories, or as `Agent.run` says.
    """
    lock = InstanceLock(dict.fromkeys([config.runtime_directory, config.state_directory]))
    forbid_core_dumps()
    faulthandler.enable()  # what the watchdog's SIGABRT ends says where it stood
    faulthandler.register(signal.SIGUSR1)
    agent = Agent(
        config,
        path,
        interceptor=interceptor,
        watcher=watcher,
        notifier=Notifier(os.environ, os.getpid()),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, _reload_quietly, agent)
    try:
        await agent.run()
    finally:
        lock.close()


def _reload_quietly(agent: Agent) -> None:
    with contextlib.suppress(ConfigError):  # said in the log and by `doctor`
        agent.reload()
