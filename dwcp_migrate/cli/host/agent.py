"""`dwcp-migrate agent`: run the agent of this host in the foreground, as its systemd unit does."""

import os
from pathlib import Path

import click

from dwcp_migrate.config import DEFAULT_PATH, load


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    default=DEFAULT_PATH,
    show_default=True,
    help="Configuration file.",
)
def command(path: Path) -> None:
    """Run the agent until SIGTERM; SIGHUP reads the configuration again."""
    # Before numpy is imported: a thread for each core costs more than it brings on the small matrices of a forecast.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import asyncio

    from dwcp_migrate import logs
    from dwcp_migrate.agent.service import serve_agent
    from dwcp_migrate.hypervisor.intercept import NftInterceptor
    from dwcp_migrate.hypervisor.libvirt_events import LibvirtWatcher

    config = load(path)
    logs.configure(
        config.log_format,
        config.log_level,
        journald="JOURNAL_STREAM" in os.environ,
        stream=logs.standard_output(),
    )
    watcher = LibvirtWatcher(config.libvirt_uri, config.state_directory) if config.libvirt_uri else None
    asyncio.run(serve_agent(config, path, watcher, NftInterceptor))
