"""Events of a stream for the migration's record.

RamTotal(bytes)      the main channel announced the guest's memory
GuestUuid(text)      a multifd channel announced the guest's UUID (zeros if QEMU was given none)
Iteration(number)    the main channel began another pass over memory, counted from 1
Switchover()         RAM's SECTION_END passed in precopy: the guest is paused
Postcopy()           the packaged device state passed: the guest is about to run at the destination
Opaque(reason)       from here on this connection is not parsed
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RamTotal:
    """Bytes of guest memory, all blocks."""

    total_bytes: int


@dataclass(frozen=True, slots=True)
class GuestUuid:
    """The guest's UUID in its usual form."""

    uuid: str


@dataclass(frozen=True, slots=True)
class Iteration:
    """A pass over guest memory as far as the stream shows it: offsets started over."""

    number: int


@dataclass(frozen=True, slots=True)
class Switchover:
    """The guest is paused at the source."""


@dataclass(frozen=True, slots=True)
class Postcopy:
    """The stream switched to postcopy."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """The rest of the connection is carried without a look into it."""

    reason: str


Event = RamTotal | GuestUuid | Iteration | Switchover | Postcopy | Opaque
