"""The service that relieves the fleet by itself, as the control API tells and takes it.

The rule: as in `api.plans`: one record, changed at the revision that was read.

    GET  /v1/watch                 StoredWatch
    POST /v1/watch/put?revision=R  StoredWatch    the body is a `WatchRecord` as JSON
"""

from typing import Final

import msgspec

from dwcp_migrate.api.kept_record import decode_kept
from dwcp_migrate.placement.watch_settings import WatchSettings
from dwcp_migrate.units import KIB

ROUNDS_KEPT: Final = 100
WATCH_BYTES_MAX: Final = 96 * KIB


class WatchRound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One look at which a host was hot.

    Attributes:
        at: seconds since the epoch.
        by: the host whose agent looked.
        hot: level of each hot host.
        due: those that were hot for long enough.
        moves: that were begun, or would have been, as `DOMAIN: SOURCE -> DESTINATION`.
        plan: that carries them out; 0 for none.
        words: why nothing was done, or that it was only observed.
        outcome: what came of the plan, once it has ended.
    """

    at: float
    by: str = ""
    hot: dict[str, float] = {}
    due: list[str] = []
    moves: list[str] = []
    plan: int = 0
    words: str = ""
    outcome: str = ""


class WatchRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The service.

    Attributes:
        settings: of it.
        since: when each host that is hot became so.
        looked_at: when it looked last; `looks` counts them.
        resting: when each domain was moved, or would have been.
        words: about the last look, where it could not see.
        rounds: the last `ROUNDS_KEPT` at which a host was hot, the newest last.
    """

    settings: WatchSettings = WatchSettings()
    since: dict[str, float] = {}
    looked_at: float = 0.0
    looks: int = 0
    resting: dict[str, float] = {}
    words: str = ""
    rounds: list[WatchRound] = []


class StoredWatch(msgspec.Struct, frozen=True, kw_only=True):
    """The record at one of its revisions; 0 where it was never written."""

    revision: int = 0
    record: WatchRecord = WatchRecord()


def encode_watch(record: WatchRecord) -> bytes:
    """Write the record; the oldest rounds make room."""
    record = msgspec.structs.replace(record, rounds=record.rounds[-ROUNDS_KEPT:])
    while len(data := msgspec.json.encode(record)) > WATCH_BYTES_MAX and record.rounds:
        record = msgspec.structs.replace(record, rounds=record.rounds[(len(record.rounds) + 1) // 2 :])
    return data


def decode_watch(data: bytes) -> WatchRecord:
    """Read the record.

    Raises:
        PlacementError: it is none, or too large.
    """
    return decode_kept(data, WatchRecord, "the record of the watch", WATCH_BYTES_MAX)
