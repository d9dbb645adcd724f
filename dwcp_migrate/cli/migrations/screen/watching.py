"""The screen of `top`: asked anew each interval, redrawn at a key.

The rule: an agent that goes away is shown as such and asked again, so that `top` can stay open across an upgrade. Peers
are asked beside it, because a silent one takes seconds.
"""

import itertools
import locale
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.cli.migrations.screen.keyboard import Keyboard
from dwcp_migrate.cli.migrations.screen.picture import RateTrail, View, draw
from dwcp_migrate.cli.migrations.screen.sparkline import levels_for
from dwcp_migrate.errors import AgentUnreachableError, DwcpError

RECENT: Final = 5
"""Ended migrations shown below the running ones."""

PEERS_INTERVAL_S: Final = 5.0

QUIT: Final = frozenset("qQ\x04")
"""The key q, and Ctrl-D."""


def show_screen(client: ApiClient, interval_s: float, count: int | None) -> None:
    """Draw until the key q, Ctrl-C, or so many pictures.

    Args:
        client: the local agent.
        interval_s: between two pictures.
        count: of pictures; None for any number.
    """
    console = Console()
    screen = _Screen(client, levels_for(console.encoding, locale.getencoding()))
    with (
        _ended_by_sigterm(),
        _PeerAnswers(client) as peers,
        Keyboard() as keyboard,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        for tick in itertools.count(1):
            screen.ask()
            live.update(screen.picture(peers.known, console.width), refresh=True)
            if tick == count:
                return
            next_at = time.monotonic() + interval_s
            while (left_s := next_at - time.monotonic()) > 0:
                pressed = keyboard.wait(left_s)
                if QUIT & set(pressed):
                    return
                if pressed.lower().count("p") % 2:
                    screen.shows_peers = not screen.shows_peers
                    live.update(screen.picture(peers.known, console.width), refresh=True)


class _Screen:
    """The last answer of the agent, and the rates of those before it."""

    def __init__(self, client: ApiClient, levels: str) -> None:
        self._client = client
        self._levels = levels
        self._rates = RateTrail()
        self._status: schema.AgentStatus | None = None
        self._recent: list[schema.Migration] = []
        self._error = ""
        self.shows_peers = True

    def ask(self) -> None:
        """Ask the agent; one that does not answer is told at the next picture."""
        try:
            self._status, self._recent = self._client.status(), self._client.history(RECENT).migrations
        except AgentUnreachableError as error:
            self._error = f"{error}\n{error.hint}"
            return
        self._error = ""
        self._rates.take(self._status)

    def picture(self, peers: list[schema.PeerView], width: int) -> RenderableType:
        """Draw the last answer, or its absence."""
        if self._error or self._status is None:
            return Text(self._error, style="red")
        view = View(rates=self._rates, levels=self._levels, peers=peers if self.shows_peers else [])
        return draw(self._status, self._recent, width, view)


class _PeerAnswers:
    """The last answers of the peers, asked for by a thread of its own as long as this is open."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._closed = Event()
        self.known: list[schema.PeerView] = []

    def __enter__(self) -> Self:
        Thread(target=self._ask, name="peers", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def _ask(self) -> None:
        while not self._closed.is_set():
            try:
                self.known = self._client.peers()
            except DwcpError:
                self.known = []
            self._closed.wait(PEERS_INTERVAL_S)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an orderly end, so that the terminal is put back."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
