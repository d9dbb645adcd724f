"""Commands that change the cluster state, and their form in the log. No IO.

A command holds everything that its outcome depends on, the time included; one that breaks a limit is refused where it
is decoded, before it reaches the log or the state. Each carries the lowest version that reads it, so that hosts of an
older release go on as long as nobody uses what is new. The bytes of each are held by tests: a body whose meaning or
fields change gets a version of its own.

    log entry   msgpack array of commands, each a msgpack byte string (one submitted batch)
    command     version | request | by | at | body (tagged by its type)
"""

import contextlib
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.state.fleet.model import (
    DOCUMENT_BYTES_MAX,
    FIRST_VERSION,
    VERSION,
    Certificate,
    Count,
    HostCapacity,
    HostReach,
    HostState,
    Labels,
    Lifetime,
    Limits,
    Name,
    RequestId,
    RuleRecord,
    Seconds,
    Text,
    Uuid,
)
from dwcp_migrate.units import KIB

COMMAND_BYTES_MAX: Final = 128 * KIB
"""One command; a certificate of `CERTIFICATE_BYTES_MAX` fits four times. Bulk state goes beside the log."""

BATCH_BYTES_MAX: Final = 160 * KIB
"""One log entry. It stays below what the log replicates in one message."""

BATCH_COMMANDS_MAX: Final = 1024


class _Body(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag=str.lower):
    """Body of a command.

    Attributes:
        since: the lowest version that reads it. A host that reads less would stop, so that it is not proposed while
            there is one.
    """

    since: ClassVar[int] = FIRST_VERSION


class PutHost(_Body, frozen=True, kw_only=True):
    """A host reports its facts, and that it lives.

    Attributes:
        reads: newest version that its software reads.
    """

    name: Name
    trust_domain: Text = ""
    labels: Labels = {}
    capacity: HostCapacity = HostCapacity()
    reads: Count = FIRST_VERSION


class PutReach(_Body, frozen=True, kw_only=True):
    """A host publishes its addresses."""

    since: ClassVar[int] = 2
    name: Name
    reach: HostReach


class SetHostState(_Body, frozen=True, kw_only=True):
    """A host drains, is taken for dead, or is back."""

    name: Name
    state: HostState


class RemoveHost(_Body, frozen=True, kw_only=True):
    """A host leaves; refused while it owns domains."""

    name: Name


class PutDomain(_Body, frozen=True, kw_only=True):
    """A host says that it runs a domain that nobody owns yet; a known one only gets its name and size."""

    uuid: Uuid
    name: Text = ""
    memory_bytes: Count = 0


class ForgetDomain(_Body, frozen=True, kw_only=True):
    """The owner undefined a domain."""

    uuid: Uuid


class SetLimits(_Body, frozen=True, kw_only=True):
    """Limits on migrations at once from now on."""

    limits: Limits


class PutRule(_Body, frozen=True, kw_only=True):
    """A placement rule, new or replaced."""

    rule: RuleRecord


class DropRule(_Body, frozen=True, kw_only=True):
    """A placement rule is dropped; an unknown name is fine."""

    name: Name


class Propose(_Body, frozen=True, kw_only=True):
    """The source asks to move a domain.

    Attributes:
        generation: that the asker believes in, 0 for any.
        certificate: needed when the hosts are of different trust domains.
    """

    uuid: Uuid
    name: Text = ""
    source: Name
    destination: Name
    lifetime_s: Lifetime
    generation: Count = 0
    certificate: Certificate = b""


class Begin(_Body, frozen=True, kw_only=True):
    """The destination accepted the data link."""

    token: Count


class Resume(_Body, frozen=True, kw_only=True):
    """The destination runs the domain: it is the owner now."""

    token: Count


class Fail(_Body, frozen=True, kw_only=True):
    """The migration did not happen; the domain stays with the source."""

    token: Count
    reason: Text = ""


class Resolve(_Body, frozen=True, kw_only=True):
    """Report of libvirt on both hosts about a ticket whose end nobody recorded; None is unknown."""

    token: Count
    source_runs: bool | None = None
    destination_runs: bool | None = None


class HandOver(_Body, frozen=True, kw_only=True):
    """The owner says that a domain runs elsewhere now: it went point to point, while the fleet could not be asked."""

    uuid: Uuid
    destination: Name


class Acquire(_Body, frozen=True, kw_only=True):
    """Take a lease, or prolong one that is held already."""

    name: Name
    lifetime_s: Lifetime


class Release(_Body, frozen=True, kw_only=True):
    """Give a lease back; only the holder of this very token does."""

    name: Name
    token: Count


class Reserve(_Body, frozen=True, kw_only=True):
    """Take a share of a link, or change one."""

    name: Name
    source: Name
    destination: Name
    bytes_per_s: Count
    lifetime_s: Lifetime


class Unreserve(_Body, frozen=True, kw_only=True):
    """Give a share back."""

    name: Name
    token: Count


class ForgetHost(_Body, frozen=True, kw_only=True):
    """An operator says that a host is gone for good: with its domains, tickets, leases and reservations."""

    since: ClassVar[int] = 2
    name: Name


class DropDomain(_Body, frozen=True, kw_only=True):
    """An operator says that a domain is gone, whoever owned it."""

    since: ClassVar[int] = 2
    uuid: Uuid


class AssignDomain(_Body, frozen=True, kw_only=True):
    """An operator says who owns a domain, and that it runs nowhere else; a ticket that is open ends."""

    since: ClassVar[int] = 2
    uuid: Uuid
    owner: Name


class EndTicket(_Body, frozen=True, kw_only=True):
    """An operator ends a ticket that nobody else does; the domain stays with its owner."""

    since: ClassVar[int] = 2
    token: Count
    reason: Text = ""


class SetClock(_Body, frozen=True, kw_only=True):
    """An operator sets a fleet's time back to that of this command; what was to last longer keeps what it had left."""

    since: ClassVar[int] = 2


class SetVersion(_Body, frozen=True, kw_only=True):
    """An operator raises the fleet to a version; there is no way back."""

    since: ClassVar[int] = 2
    version: Annotated[int, Meta(ge=2, le=2**31)]


class PutDocument(_Body, frozen=True, kw_only=True):
    """Keep a document, new or in the place of the revision that is named.

    Attributes:
        revision: that it replaces; 0 for a new one.
    """

    since: ClassVar[int] = 2
    name: Name
    revision: Count = 0
    body: Annotated[bytes, Meta(max_length=DOCUMENT_BYTES_MAX)] = b""


class DropDocument(_Body, frozen=True, kw_only=True):
    """Keep this revision of a document no longer."""

    since: ClassVar[int] = 2
    name: Name
    revision: Count


class Barrier(_Body, frozen=True, kw_only=True):
    """No change: a host that sees it applied has seen everything before it.

    Attributes:
        padding: makes it as large as a measurement wants.
    """

    padding: Annotated[bytes, Meta(max_length=COMMAND_BYTES_MAX)] = b""


Body = (
    PutHost
    | PutReach
    | SetHostState
    | RemoveHost
    | PutDomain
    | ForgetDomain
    | SetLimits
    | PutRule
    | DropRule
    | Propose
    | Begin
    | Resume
    | Fail
    | Resolve
    | HandOver
    | Acquire
    | Release
    | Reserve
    | Unreserve
    | ForgetHost
    | DropDomain
    | AssignDomain
    | EndTicket
    | SetClock
    | SetVersion
    | PutDocument
    | DropDocument
    | Barrier
)


class Command(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A body and its origin.

    Attributes:
        request: names this request among those of `by`; the same one again changes nothing and gets the same outcome.
        by: the host that asks, as its certificate says.
        at: its clock, seconds since the epoch.
        version: the lowest that reads the body; `encode` sets it.
    """

    version: Annotated[int, Meta(ge=1, le=2**31)] = FIRST_VERSION
    request: RequestId
    by: Name
    at: Seconds
    body: Body


class _Head(msgspec.Struct, frozen=True, array_like=True):
    version: int
    request: RequestId
    by: Name


class _Timed(msgspec.Struct, frozen=True, array_like=True):
    version: int
    request: RequestId
    by: Name
    at: Seconds
    body: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Command)
_heads = msgspec.msgpack.Decoder(_Head)
_timed = msgspec.msgpack.Decoder(_Timed)
_Batch = Annotated[list[Annotated[bytes, Meta(max_length=COMMAND_BYTES_MAX)]], Meta(max_length=BATCH_COMMANDS_MAX)]
_batches = msgspec.msgpack.Decoder(_Batch)


class UnknownVersionError(RemoteProtocolError):
    """A command of a newer version: this replica must not go on, it would come to another state than the others."""


def encode(command: Command) -> bytes:
    """Write a command.

    Raises:
        LimitExceededError: it is larger than `COMMAND_BYTES_MAX`.
    """
    if command.version < command.body.since:
        command = msgspec.structs.replace(command, version=command.body.since)
    data = _encoder.encode(command)
    if len(data) > COMMAND_BYTES_MAX:
        raise LimitExceededError(f"command of {len(data)} bytes, at most {COMMAND_BYTES_MAX}")
    return data


def decode(data: bytes) -> Command:
    """Read a command.

    Raises:
        UnknownVersionError: of a newer version.
        RemoteProtocolError: it breaks a rule or a limit.
    """
    try:
        head: _Head = _heads.decode(data)
        if head.version > VERSION:
            raise UnknownVersionError(
                f"command of version {head.version}, this software knows {VERSION}", hint="upgrade this agent"
            )
        command: Command = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"command: {error}") from error
    if command.version < command.body.since:  # a replica of that version cannot read it: refused by all alike
        raise RemoteProtocolError(f"command: {type(command.body).__name__} is of version {command.body.since}")
    return command


def encode_batch(commands: list[bytes]) -> bytes:
    """Join commands to one log entry; see `BATCH_BYTES_MAX`, which the caller keeps."""
    return _encoder.encode(commands)


def decode_batch(data: bytes) -> list[bytes]:
    """Split a log entry.

    Raises:
        RemoteProtocolError: it is none, or breaks a limit.
    """
    if len(data) > BATCH_BYTES_MAX:
        raise LimitExceededError(f"log entry of {len(data)} bytes, at most {BATCH_BYTES_MAX}")
    try:
        batch: list[bytes] = _batches.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"log entry: {error}") from error
    return batch


def read_author(data: bytes) -> str:
    """Read the name of the host that a command claims to be by.

    Raises:
        RemoteProtocolError: it is no command.
    """
    try:
        head: _Head = _heads.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"command: {error}") from error
    return head.by


def times(batch: list[bytes]) -> list[tuple[str, float]]:
    """List author and time of each command; bytes that are no command are left out."""
    found = []
    for data in batch:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            head = _timed.decode(data)
            found.append((head.by, head.at))
    return found


def held_back(batch: list[bytes], latest: float) -> list[bytes]:
    """Return the commands with no time later than `latest`; bytes that are no command stay as they are.

    Args:
        batch: as `decode_batch` returns it.
        latest: seconds since the epoch.
    """
    return [_held_back(data, latest) for data in batch]


def _held_back(data: bytes, latest: float) -> bytes:
    try:
        head: _Timed = _timed.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data
    return data if head.at <= latest else _encoder.encode(msgspec.structs.replace(head, at=max(0.0, latest)))
