"""systemd's notification protocol, sd_notify(3): ready, stopping, watchdog. Silent where systemd does not ask for it.

The rule: a notification that fails is dropped; the service must not depend on its supervisor's socket.
"""

import socket
from collections.abc import Mapping
from typing import Final

WATCHDOG_SHARE: Final = 3
"""Pings in each watchdog interval; sd_watchdog_enabled(3) recommends at least two."""


class Notifier:
    """Speaks to the service manager.

    Args:
        environment: where `NOTIFY_SOCKET` and `WATCHDOG_USEC` are looked up.
        pid: this process; `WATCHDOG_PID` must name it, where it is set.
    """

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        interval_us = environment.get("WATCHDOG_USEC", "") if meant else ""
        self.watchdog_s = int(interval_us) / 1e6 / WATCHDOG_SHARE if interval_us.isdigit() else 0.0

    def ready(self, status: str) -> None:
        """Start-up is done."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """Shut-down has begun."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Say what the service does, for `systemctl status`."""
        self._send(f"STATUS={status}")

    def watchdog(self) -> None:
        """Still alive; due every `watchdog_s` seconds unless that is 0."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(text.encode(), address)
        except OSError:
            return
