"""The hook socket: libvirt's hook announces an incoming migration, the agent notes and confirms it.

The rule: the answer comes from memory, at once; a hook that is slow, silent or wrong is dropped within
`hypervisor.hook.ANSWER_S_MAX` and costs nothing.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from dwcp_migrate.errors import HypervisorError, ProtocolError
from dwcp_migrate.hypervisor.hook import (
    ANSWER_S_MAX,
    LINE_BYTES_MAX,
    Announce,
    Heard,
    decode_announcement,
    encode_answer,
)

HOOK_SOCKET_MODE = 0o600
"""Hooks run as root; no other user may announce."""


class HookServer:
    """Listens for hooks.

    Args:
        path: of the socket; one left behind by a dead agent is replaced.
        announced: takes an announcement.
        rejected: counts a hook that said nothing useful.
    """

    def __init__(self, path: Path, announced: Callable[[Announce], None], rejected: Callable[[str], None]) -> None:
        self._path = path
        self._announced = announced
        self._rejected = rejected
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            HypervisorError: the socket cannot be made.
        """
        try:
            self._path.unlink(missing_ok=True)
            before = os.umask(0o777 & ~HOOK_SOCKET_MODE)
            try:
                self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LINE_BYTES_MAX)
            finally:
                os.umask(before)
        except OSError as error:
            raise HypervisorError(f"hook socket {self._path}: {error.strerror}") from error

    @property
    def listening(self) -> bool:
        """The socket is there."""
        return self._server is not None and self._server.is_serving() and self._path.is_socket()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                writer.write(encode_answer(self._answer(await reader.readline())))
                await writer.drain()
        except (TimeoutError, OSError, ValueError):  # ValueError: the line is longer than the limit
            self._rejected("silent")
        finally:
            writer.close()

    def _answer(self, line: bytes) -> Heard:
        try:
            announce = decode_announcement(line)
        except ProtocolError as error:
            self._rejected("garbage")
            return Heard(ok=False, error=str(error)[:200])
        if announce.operation == "migrate begin":
            self._announced(announce)
        return Heard(ok=True)

    async def close(self) -> None:
        """Stop listening and take the socket away."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
