"""The redirect as the agent wants it: armed towards every peer while migrations may be accelerated.

The rule: it is armed only while a data process waits, because a connection that is caught and cannot be carried fails
a migration that plain TCP would have done. Whatever the kernel refuses is said in the status and tried again.
"""

import socket
from collections.abc import Callable

from dwcp_migrate.agent.peers.directory import PeerDirectory, canonical, family_of
from dwcp_migrate.api.schema import RedirectRule, RedirectStatus
from dwcp_migrate.config import InterceptConfig
from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.base import Interceptor, Redirect
from dwcp_migrate.logs import get_logger

log = get_logger(component="redirect")


class Redirection:
    """Holds the redirect.

    Args:
        make: opens the kernel's interface; raises HypervisorError where there is none.
    """

    def __init__(self, make: Callable[[], Interceptor]) -> None:
        self._make = make
        self._interceptor: Interceptor | None = None
        self._in_force: list[Redirect] = []
        self.error = ""

    def hold(
        self,
        config: InterceptConfig,
        directory: PeerDirectory,
        families: frozenset[socket.AddressFamily],
        *,
        wanted: bool,
    ) -> None:
        """Arm or disarm, as wanted; nothing is done when that is how it is.

        Args:
            config: ports.
            directory: the peers.
            families: those whose listener accepts; others are left alone, a connection would be refused.
            wanted: whether migrations may be accelerated now.
        """
        redirects = [
            Redirect(address, config.port_min, config.port_max, config.port, config.mark)
            for address, _ in directory.redirected()
            if wanted and config.redirect and family_of(address) in families
        ]
        if redirects == self._in_force and not self.error:
            return
        try:
            if self._interceptor is None:
                if not redirects:
                    return
                self._interceptor = self._make()
            self._interceptor.arm(redirects)
        except HypervisorError as error:
            self._in_force = []
            if str(error) != self.error:
                log.error("redirect not armed", error=str(error), hint=error.hint)  # noqa: TRY400 - no bug, no trace
            self.error = str(error)
            return
        self._in_force, self.error = redirects, ""
        log.info("redirect armed" if redirects else "redirect disarmed", addresses=len(redirects))

    def keep_translation(self) -> list[socket.socket]:
        """For a data process, so that QEMU hears of its end even when the agent ended first; none where none is caught.

        A kernel that refuses costs only that: it is said, and the migration goes on.
        """
        if self._interceptor is None:
            return []
        try:
            return [self._interceptor.keep_translation()]
        except HypervisorError as error:
            log.warning("translation ends with the agent", error=str(error), hint=error.hint)
            return []

    def view(self, config: InterceptConfig, directory: PeerDirectory, *, wanted: bool) -> RedirectStatus:
        """Read it back from the kernel."""
        rules: list[RedirectRule] = []
        error = self.error
        try:
            caught = self._interceptor.caught() if self._interceptor else []
        except HypervisorError as failure:
            caught, error = [], str(failure)
        for found in caught:
            peer = directory.by_address(canonical(found.address))
            name = peer.name if peer else ""
            rules.append(RedirectRule(peer=name, address=found.address, packets=found.packets, bytes=found.bytes))
        return RedirectStatus(
            wanted=wanted and config.redirect,
            armed=bool(self._in_force) and len(rules) == len(self._in_force),
            error=error,
            port_min=config.port_min,
            port_max=config.port_max,
            rules=rules,
        )

    def close(self) -> None:
        """Give it up; the kernel removes it."""
        if self._interceptor is not None:
            self._interceptor.close()
            self._interceptor = None
        self._in_force = []
