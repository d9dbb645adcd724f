"""A trial of the libvirt hook: it is run as libvirt runs it, for a domain that does not exist, until it has announced.

The rule: a trial allows no migration. The domain's UUID is made for it and known to nobody else, so that its
announcement fits none; and however often peers ask, the hook is run once in `KEPT_S` at most.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.protocol.control import HookRound

HOOK: Final = Path("/etc/libvirt/hooks/qemu.d/50-dwcp-migrate")
HOOK_VARIABLE: Final = "DWCP_MIGRATE_HOOK"
"""Names another file, as the hook's own variables do its socket and configuration."""

DOMAIN: Final = "dwcp-migrate-check"
TRIAL_S_MAX: Final = 5.0
"""The hook itself gives up after 1.5 s."""

KEPT_S: Final = 10.0
PROBLEM_CHARACTERS_MAX: Final = 200


class HookTrial:
    """Tries this host's hook.

    Args:
        last_at: when libvirt's own call was heard last, seconds since the epoch.
        path: of the hook; None is where libvirt looks for it.
    """

    def __init__(self, last_at: Callable[[], float], path: Path | None = None) -> None:
        self._last_at = last_at
        self._path = path or Path(os.environ.get(HOOK_VARIABLE, HOOK))
        self._awaited: dict[str, asyncio.Event] = {}
        self._turn = asyncio.Lock()
        self._known: tuple[float, HookRound] = (-KEPT_S, HookRound())

    def take(self, domain_uuid: str) -> bool:
        """Take an announcement if it is a trial's; False: it is libvirt's own."""
        heard = self._awaited.get(domain_uuid)
        if heard is not None:
            heard.set()
        return heard is not None

    async def run(self) -> HookRound:
        """Try the hook, unless that was done a moment ago."""
        async with self._turn:
            tried_at, known = self._known
            if steady_clock() - tried_at >= KEPT_S:
                known = await self._try()
                self._known = (steady_clock(), known)
        return replace(known, last_at=self._last_at())

    async def _try(self) -> HookRound:
        domain_uuid, heard = str(uuid.uuid4()), asyncio.Event()
        self._awaited[domain_uuid] = heard
        began = steady_clock()
        try:
            async with asyncio.timeout(TRIAL_S_MAX):
                said = await self._call(domain_uuid)
        except TimeoutError:
            said = f"it did not end within {TRIAL_S_MAX:g} s"
        except OSError as error:
            said = f"{self._path}: {error.strerror}"
        finally:
            del self._awaited[domain_uuid]
        if heard.is_set():
            return HookRound(round_trip_s=steady_clock() - began)
        return HookRound(problem=(said or f"{self._path} said nothing to the agent")[:PROBLEM_CHARACTERS_MAX])

    async def _call(self, domain_uuid: str) -> str:
        """Run it with a domain's XML as libvirt does; returns what it complains of."""
        process = await asyncio.create_subprocess_exec(
            *(str(self._path), DOMAIN, "migrate", "begin", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await process.communicate(f"<domain><uuid>{domain_uuid}</uuid></domain>".encode())
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return errors.decode(errors="replace").strip()
