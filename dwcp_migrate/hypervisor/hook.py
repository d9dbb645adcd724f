"""Messages between the libvirt hook and the agent on the hook socket. No IO.

The rule: one line of limited length each way, and the agent answers without asking libvirt: libvirtd waits for the hook
while it holds the domain's job, so that a call to libvirt would never return.

    hook    {"operation": "migrate begin", "name": "vm", "uuid": "..."}
    agent   {"ok": true}

The hook itself (hooks/qemu.d/50-dwcp-migrate) runs on the system's Python and imports nothing of this package.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError

LINE_BYTES_MAX: Final = 4096
"""libvirt's names are file names: at most 255 bytes; a UUID has 36 characters."""

ANSWER_S_MAX: Final = 1.0
"""Time that a hook has to send its line; the hook itself gives up earlier."""


class Announce(msgspec.Struct, frozen=True):
    """A migration is about to arrive."""

    operation: Annotated[str, Meta(max_length=64)]
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    uuid: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Heard(msgspec.Struct, frozen=True):
    """The agent's answer: whether it took the announcement, and if not, why."""

    ok: bool
    error: str = ""


_decoder = msgspec.json.Decoder(Announce)


def decode_announcement(line: bytes) -> Announce:
    """Read the hook's line.

    Raises:
        LimitExceededError: longer than `LINE_BYTES_MAX`.
        RemoteProtocolError: not an announcement.
    """
    if len(line) > LINE_BYTES_MAX:
        raise LimitExceededError(f"hook line of {len(line)} bytes, at most {LINE_BYTES_MAX}")
    try:
        announce: Announce = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"hook line: {error}") from error
    return announce


def encode_answer(answer: Heard) -> bytes:
    """Write the agent's line."""
    return msgspec.json.encode(answer) + b"\n"
