"""Keeper of the redirect: armed towards every peer while migrations may be accelerated.

It is armed only while a data process waits, because a connection that is caught and cannot be carried fails a migration
that would have succeeded over plain TCP. A refusal of the kernel is shown in the status, and arming is tried again.
"""

import socket
from collections.abc import Callable
from typing import Final

from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.api.schema import RedirectRule, RedirectStatus
from dwcp_migrate.config import InterceptConfig
from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.base import Cgroup, Exemption, Interceptor, Redirect
from dwcp_migrate.logs import get_logger

ROOT_MARK: Final = 0x1000
"""Of an agent that runs as root. Kubernetes drops and masquerades by 0x8000 and 0x4000, Cilium uses 0x0F00, Calico and
Tailscale bits above 0xFFFF, Istio 0x539, AWS 0x80, WireGuard's wg-quick 0xCA6C: none of them has this bit."""

log = get_logger(component="redirect")


def own_exemption(mark: int, user: int) -> Exemption:
    """Whom the redirect lets pass.

    Args:
        mark: `intercept.mark`; 0 leaves it to the agent.
        user: the agent's user. Root is libvirtd's too, so that root's agent has to mark its sockets.
    """
    return Exemption(user, mark or (0 if user else ROOT_MARK))


class Redirection:
    """Holds the redirect.

    Args:
        make: opens the kernel's interface; raises HypervisorError where there is none.
        exempt: the agent's own sockets.
        foreign: reads the groups of services that migrate no guest.
    """

    def __init__(
        self, make: Callable[[], Interceptor], exempt: Exemption, foreign: Callable[[], frozenset[Cgroup]]
    ) -> None:
        self._make = make
        self._exempt = exempt
        self._foreign = foreign
        self._interceptor: Interceptor | None = None
        self._in_force: Redirect | None = None
        self._left_alone: frozenset[str] = frozenset()
        self.error = ""

    def hold(
        self,
        config: InterceptConfig,
        directory: PeerDirectory,
        families: frozenset[socket.AddressFamily],
        *,
        wanted: bool,
        left_alone: frozenset[str] = frozenset(),
    ) -> None:
        """Arm or disarm, as wanted; nothing is done when that is how it is.

        Args:
            config: ports.
            directory: the peers.
            families: those whose listener accepts; others are left alone, a connection would be refused.
            wanted: whether migrations may be accelerated now.
            left_alone: addresses of peers whose migrations go past this host's agent.
        """
        addresses = directory.redirected_of(families)
        is_held = wanted and config.redirect and addresses  # with nobody's address where all are left alone
        redirect = self._redirect(config, addresses - left_alone) if is_held else None
        self._left_alone = left_alone & addresses
        if redirect == self._in_force and not self.error and self._keep_alive():
            return
        before = len(self._in_force.addresses) if self._in_force else 0
        try:
            self._put(redirect)
        except HypervisorError as error:
            self._in_force = None
            if str(error) != self.error:
                log.error("redirect not armed", error=str(error), hint=error.hint)  # noqa: TRY400 - no bug, no trace
            self.error = str(error)
            return
        self._in_force, self.error = redirect, ""
        after = len(redirect.addresses) if redirect else 0
        if after != before:
            log.info("redirect armed" if after else "redirect disarmed", addresses=after)

    def _keep_alive(self) -> bool:
        """Say that the agent lives; False where the redirect has to be put in force anew."""
        try:
            if self._interceptor is not None:
                self._interceptor.keep_alive()
        except HypervisorError as error:
            log.warning("redirect not kept", error=str(error), hint=error.hint)
            return False
        return True

    def _redirect(self, config: InterceptConfig, addresses: frozenset[str]) -> Redirect:
        return Redirect(
            addresses, config.port_min, config.port_max, config.port, exempt=self._exempt, foreign=self._foreign()
        )

    def _put(self, redirect: Redirect | None) -> None:
        if self._interceptor is None:
            if redirect is None:
                return
            self._interceptor = self._make()
        if redirect is None:
            self._interceptor.disarm()
        else:
            self._interceptor.arm(redirect)

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
        """Read the redirect back from the kernel.

        Args:
            config: `intercept` of the configuration.
            directory: of peers, whose names the addresses get.
            wanted: whether the agent's state lets it redirect.
        """
        rules: list[RedirectRule] = []
        error = self.error
        if not directory.redirected():
            error = "no peer has an IP address that is known" if directory.all() else "no peer is configured"
        try:
            caught = self._interceptor.caught() if self._interceptor else []
        except HypervisorError as failure:
            caught, error = [], str(failure)
        names = {address: peer.name for address, peer in directory.redirected()}
        for found in caught:
            name = names.get(found.address, "")
            rules.append(RedirectRule(peer=name, address=found.address, packets=found.packets, bytes=found.bytes))
        return RedirectStatus(
            wanted=wanted and config.redirect,
            armed=self._in_force is not None and len(rules) == len(self._in_force.addresses),
            error=error,
            port_min=config.port_min,
            port_max=config.port_max,
            rules=rules,
            addresses=len(directory.redirected()),
            left_alone=sorted({names[address] for address in self._left_alone if address in names}),
        )

    def close(self) -> None:
        """Close the interface; the kernel removes the redirect."""
        if self._interceptor is not None:
            self._interceptor.close()
            self._interceptor = None
        self._in_force = None
