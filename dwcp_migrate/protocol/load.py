"""Loads of guests and hosts, as agents tell each other and the control API: quantiles of the last hour. No IO.

The rule: a figure that was not measured is None, never 0. Rows are arrays, so that the guests of a host with a thousand
of them fit into a few messages.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

GUESTS_EACH: Final = 256
"""Guests in one message; 256 of them take about 30 KiB."""

Figure = Annotated[float, Meta(ge=0, le=1e18)]


class LoadRange(msgspec.Struct, frozen=True, array_like=True):
    """A quantity over the last hour: its median, its 0.9-quantile, and the newest minute."""

    median: Figure
    high: Figure
    now: Figure


class GuestLoad(msgspec.Struct, frozen=True, array_like=True):
    """Load of a guest.

    Attributes:
        uuid: of it.
        cpu: cores.
        memory: bytes that it has in use, as its balloon driver says, else as the host sees it.
        disk: bytes/s, read and written; `network` received and sent.
        dirty: bytes/s that it writes to memory.
    """

    uuid: Annotated[str, Meta(max_length=36)]
    cpu: LoadRange | None = None
    memory: LoadRange | None = None
    disk: LoadRange | None = None
    network: LoadRange | None = None
    dirty: LoadRange | None = None


class HostLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Load of a host, with its guests.

    Attributes:
        at: when it was measured last, seconds since the epoch; 0 is never.
        every_s: seconds between two measurements.
        cpu: cores that are busy, by anybody.
        memory: bytes that are neither free nor quickly freed.
        stalled: share of the time in which somebody waited for memory (PSI); None where the kernel does not say.
        disk: of its guests together, `network` likewise.
        guests: their loads.
        total: guests that it has figures of; there may be more than one message carries.
    """

    at: float = 0.0
    every_s: float = 0.0
    cpu: LoadRange | None = None
    memory: LoadRange | None = None
    stalled: LoadRange | None = None
    disk: LoadRange | None = None
    network: LoadRange | None = None
    guests: Annotated[list[GuestLoad], Meta(max_length=GUESTS_EACH)] = []
    total: Annotated[int, Meta(ge=0)] = 0


class FleetLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The loads of the hosts that reported theirs, by name; and for the others the reason.

    Attributes:
        guests: of all of these hosts, by UUID; `HostLoad.guests` is empty here.
    """

    hosts: dict[str, HostLoad] = {}
    guests: dict[str, GuestLoad] = {}
    silent: dict[str, str] = {}
