"""Answers of commands that are none of the control API's, as `--json` prints them.

The rule: as in `api`: fields are added, never renamed or removed. Those that hold answers of the control API are in
`composed`, since most commands need none of them.
"""

from typing import Any

import msgspec

from dwcp_migrate.cli.host.check import Check


class CommandDone(msgspec.Struct, frozen=True, kw_only=True):
    """A command took effect. `message` is for people."""

    message: str


class KeyFaultRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with one key of a configuration file; `line` counts from 1, 0 where it stands in none."""

    key: str
    value: str
    why: str
    hint: str
    line: int


class FileChecked(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration file as `config check` found it.

    Attributes:
        error: why it was refused; empty where it was not, with `hint`.
        checks: of what it leads to, with `--deep`.
    """

    file: str
    ok: bool
    peers: int = 0
    faults: list[KeyFaultRow] = []
    error: str = ""
    hint: str = ""
    checks: list[Check] = []


class ChangedRow(msgspec.Struct, frozen=True):
    """A key that differs: what the agent runs, what the file says, and what makes them one: reload or restart."""

    key: str
    running: Any
    file: Any
    takes: str


class FileDifferences(msgspec.Struct, frozen=True, kw_only=True):
    """The running configuration against its file; `read_at` is in seconds since the epoch."""

    file: str
    read_at: float
    changes: list[ChangedRow]


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Findings of `doctor`; `verdict` is the worst of its checks."""

    verdict: str
    checks: list[Check]


class CertificateFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate and its key that were written; both empty where `renewed` is false: it was not due."""

    certificate: str = ""
    key: str = ""
    renewed: bool = True


class SigningRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a certificate and the key it is for."""

    request: str
    key: str


class StoreVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume of the page store; `used_at` is in seconds since the epoch, `image` the file that it names blocks of."""

    volume: str
    scope: str
    fill: str
    pages: int
    held_bytes: int
    used_at: float
    image: str


class StoreContents(msgspec.Struct, frozen=True, kw_only=True):
    """The page store of this host."""

    directory: str
    bytes_max: int
    held_bytes: int
    pages: int
    volumes: list[StoreVolume]


class StoredImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image whose blocks were named for a scope."""

    image: str
    scope: str
    pages: int


class StoreVerified(msgspec.Struct, frozen=True, kw_only=True):
    """The store compared with its names: pages that fit, and what was removed because it did not."""

    good_pages: int
    removed: list[str]


class VolumesRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """Volumes that were removed from the store."""

    removed: int


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """The archive that `sysdump` wrote."""

    archive: str


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """Reasons of a plan, a line each, for people."""

    lines: list[str]


class IdentityFile(msgspec.Struct, frozen=True, kw_only=True):
    """A key of a PBFT member that was made; `public_key` is 64 hexadecimal digits."""

    key: str
    public_key: str


class MoveEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a plan that this command carries out itself.

    Attributes:
        event: `begun`, `done`, `failed`, `planned-again` or `waiting`.
        step: its number, with `domain`, `source`, `destination`, and `error` where it failed.
        why: for which it was planned again, into `steps` migrations.
        domains: whose migrations, begun by others, are waited for.
    """

    event: str
    step: int = 0
    domain: str = ""
    error: str = ""
    source: str = ""
    destination: str = ""
    why: str = ""
    steps: int = 0
    domains: list[str] = []
