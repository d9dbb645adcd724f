"""The configuration in force: the file's, but for new values that wait for a restart, completed by the agent."""

import os
from dataclasses import dataclass, field

from msgspec.structs import replace

from dwcp_migrate.agent.intake.redirect import own_exemption
from dwcp_migrate.api.schema import ConfigurationStatus, RunningConfig
from dwcp_migrate.config import Config
from dwcp_migrate.config.compare import as_builtins, find_differences, keeping_listeners
from dwcp_migrate.hypervisor.base import Exemption


@dataclass
class ConfigurationInForce:
    """The file as it was read last, and what of it is in force.

    Attributes:
        path: of the file.
        running: what is in force, as the file would say it.
        read_at: when it was read last without error, seconds since the epoch.
        error: why the last reading was refused; empty when it was not.
    """

    path: str
    running: Config
    read_at: float
    error: str = ""
    _pending: list[str] = field(default_factory=list)

    def take(self, new: Config, now: float) -> list[str]:
        """Take over the configuration that a reload read.

        Args:
            new: as the file says.
            now: seconds since the epoch.

        Returns:
            Keys whose new values wait for a restart.
        """
        self.running = keeping_listeners(new, self.running)
        self._pending = [changed.key for changed in find_differences(self.running, new)]
        self.read_at, self.error = now, ""
        return self._pending

    def status(self) -> ConfigurationStatus:
        """See `api.ConfigurationStatus`."""
        return ConfigurationStatus(
            path=self.path, read_at=self.read_at, error=self.error, pending_restart=list(self._pending)
        )

    def view(self) -> RunningConfig:
        """See `api.RunningConfig`."""
        return RunningConfig(status=self.status(), values=as_builtins(self.running))


def exempted(config: Config) -> tuple[Config, Exemption]:
    """Choose how the agent's sockets pass the redirect; returns the configuration with their mark, and exemption."""
    exempt = own_exemption(config.intercept.mark, os.geteuid())
    return replace(config, intercept=replace(config.intercept, mark=exempt.mark)), exempt
