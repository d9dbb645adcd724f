"""The configuration in force: the file's, less what only a restart changes, with what the agent fills in."""

import os

from msgspec.structs import replace

from dwcp_migrate.agent.intake.redirect import exemption
from dwcp_migrate.config import Config
from dwcp_migrate.hypervisor.base import Exemption


def exempted(config: Config) -> tuple[Config, Exemption]:
    """Whom the redirect lets pass, and the configuration with the mark that follows: whoever dials reads it there."""
    exempt = exemption(config.intercept.mark, os.geteuid())
    return replace(config, intercept=replace(config.intercept, mark=exempt.mark)), exempt


def keeping_listeners(new: Config, old: Config) -> Config:
    """Take the new configuration but for what is bound already: a restart changes that."""
    intercept = replace(
        new.intercept,
        port=old.intercept.port,
        explicit_port=old.intercept.explicit_port,
        mark=old.intercept.mark,
    )
    link = replace(new.link, listen=old.link.listen, port=old.link.port)
    return replace(
        new,
        name=old.name,
        libvirt_uri=old.libvirt_uri,
        runtime_directory=old.runtime_directory,
        state_directory=old.state_directory,
        metrics_listen=old.metrics_listen,
        coordination=replace(
            new.coordination,
            engine=old.coordination.engine,
            voters=old.coordination.voters,
            election_ms=old.coordination.election_ms,
            endpoints=old.coordination.endpoints,
        ),
        intercept=intercept,
        link=link,
    )
