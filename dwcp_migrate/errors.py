"""Every error that this project raises on purpose, with what the operator can do about it.

    DwcpError                      exit 1
    ├── ConfigError                exit 2   the configuration file is wrong
    ├── NotFoundError              exit 3   no such migration, lab, file
    ├── AgentUnreachableError      exit 4   the CLI cannot reach the local agent
    ├── HypervisorError            exit 5   libvirt, nftables or the hook socket
    │   ├── NoAnswerError                   libvirt did not answer, so nothing is known
    │   ├── NoMemoryError                   this host has none to spare for a further migration
    │   └── GuestMemoryError                a guest's memory cannot be read, or must not be
    ├── PeerError                  exit 6   the other agent
    │   ├── PeerUnreachableError            no answer in time: migrations pass through
    │   ├── PeerRefusedError                it said no, and why (`code`)
    │   ├── CertificateError                TLS: wrong, expired or unknown certificate
    │   └── VersionMismatchError            it speaks another protocol version
    ├── ProtocolError              exit 7   the wire
    │   ├── LocalProtocolError              we broke the rules: a bug here
    │   └── RemoteProtocolError             the peer broke them: the link is closed
    │       └── LimitExceededError          a size or a count past its named limit
    ├── LinkLostError              exit 8   no channel came back within `link.loss_s_max`
    ├── SessionError               exit 9   this migration cannot go on
    ├── LabError                   exit 10  the lab's set-up or its guests
    ├── CoordinationError          exit 11  the fleet's shared state
    │   ├── NoQuorumError                   no majority answers in time
    │   ├── FleetRefusedError               it answers, and does not agree to this migration (`code`)
    │   └── JournalError                    the log or the snapshot on this host's disk
    ├── ConsensusError             exit 12  no agreement, or a proof of one that does not hold
    │   └── EpochError                      from an epoch that is not current, or whose members are not verified
    ├── PlacementError             exit 13  no host, no plan, or a fleet file that contradicts itself
    ├── UnfinishedError            exit 14  a plan was carried out in part
    └── StoreError                 exit 15  the page store, or an image that it is to read

A `ProtocolError` about QEMU's own stream does not exist: a surprise there only ends compression (see `qemu`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final


class DwcpError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        exit_code: what the CLI exits with; stable, one a branch of the tree above.
        hint: what to do about it, one sentence, or empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


VALUE_CHARACTERS_MAX: Final = 80
"""Longest part of a wrong value that a message quotes."""


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """Something that is wrong with one key.

    Attributes:
        key: its path, as `peers[1].addresses[0]`.
        value: what stands there.
        why: what is wrong with it.
        hint: what to do about it, or empty.
        line: where in the file, from 1; 0 where it stands in none.
    """

    key: str
    value: object
    why: str
    hint: str = ""
    line: int = 0

    def __str__(self) -> str:
        shown = repr(self.value)
        short = shown if len(shown) <= VALUE_CHARACTERS_MAX else f"{shown[:VALUE_CHARACTERS_MAX]}..."
        return f"{self.key}: {self.why}" if self.value is None else f"{self.key} = {short}: {self.why}"


class ConfigError(DwcpError):
    """The configuration is unreadable or breaks a rule.

    Attributes:
        faults: what is wrong, key by key, where that is known.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", faults: Iterable[ConfigFault] = ()) -> None:
        super().__init__(message, hint=hint)
        self.faults = tuple(faults)


class NotFoundError(DwcpError):
    """The thing that the operator named does not exist."""

    exit_code = 3


class AgentUnreachableError(DwcpError):
    """The local agent does not answer on its control socket."""

    exit_code = 4


class HypervisorError(DwcpError):
    """Libvirt, nftables or the hook socket refused."""

    exit_code = 5


class NoAnswerError(HypervisorError):
    """Libvirt did not answer, or not in time: nothing follows from it, least of all that a domain is not here."""


class NoMemoryError(HypervisorError):
    """This host has no memory to spare for a further session: the migration runs unaccelerated."""


class GuestMemoryError(HypervisorError):
    """A guest's memory cannot be read, or what is memory of it cannot be told for certain from what is not."""


class PeerError(DwcpError):
    """The agent on the other host."""

    exit_code = 6


class PeerUnreachableError(PeerError):
    """No connection to the peer's agent within the timeout."""


class PeerRefusedError(PeerError):
    """The peer's agent refused a request.

    Attributes:
        code: machine-readable reason, one of `refusals.BY_PEER`.
        is_final: it requires the fleet's agreement, so the migration must not run unaccelerated either.
    """

    def __init__(self, message: str, *, code: str, hint: str = "", is_final: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.is_final = is_final


class CertificateError(PeerError):
    """TLS authentication failed: expired, not of this fleet's CA, or another host's name."""


class VersionMismatchError(PeerError):
    """The peer speaks no protocol version that this agent speaks."""


class ProtocolError(DwcpError):
    """A rule of the agents' own protocol was broken."""

    exit_code = 7


class LocalProtocolError(ProtocolError):
    """This process broke the protocol: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; nothing of the offending message was used."""


class LimitExceededError(RemoteProtocolError):
    """A size or a count from the wire is past its named limit."""


class LinkLostError(DwcpError):
    """All channels are gone and none came back in time."""

    exit_code = 8


class SessionError(DwcpError):
    """This migration cannot go on; both ends were reset, the guest stays where libvirt has it."""

    exit_code = 9


class LabError(DwcpError):
    """The lab could not be set up, or what runs in it misbehaved."""

    exit_code = 10


class CoordinationError(DwcpError):
    """The fleet's shared state cannot be asked or changed, or it refused a change."""

    exit_code = 11


class NoQuorumError(CoordinationError):
    """No majority of voters confirmed it in time; it may be done or not, and the same request may be repeated."""


class FleetRefusedError(CoordinationError):
    """The fleet answers, and does not agree to this migration.

    Attributes:
        code: machine-readable reason, one of `refusals.BY_CLUSTER_STATE`.
    """

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class JournalError(CoordinationError):
    """The log or the snapshot on disk cannot be used."""


class ConsensusError(DwcpError):
    """The group did not agree in time, or what is shown as its agreement does not hold."""

    exit_code = 12


class EpochError(ConsensusError):
    """A certificate or a membership link from an epoch that is not current, or whose members are not verified."""


class PlacementError(DwcpError):
    """No host takes a domain, a plan cannot go on, or the description of the fleet contradicts itself."""

    exit_code = 13


class StalePlanError(PlacementError):
    """Somebody else changed a plan's record meanwhile."""


class UnfinishedError(DwcpError):
    """A plan was carried out in part: domains are left that it was to move, or it was stopped."""

    exit_code = 14


class StoreError(DwcpError):
    """The page store or a disk image cannot be used; migrations go on without what it held."""

    exit_code = 15
